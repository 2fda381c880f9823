-- What `update.lua` nearly always comes to, before the functions of `common.lua`, which are made anew each
-- time that a script gets to them. Whatever is not as usual is left to it, errors of a read included. The range is in
-- text, as a command has it: to print numbers of Lua's costs an eighth of the script.
local head = redis.pcall('GETRANGE', KEYS[1], '0', '24')
if type(head) == 'string' and #head == 25 and head:sub(1, 9) == ARGV[4] then
    local expires, seen = struct.unpack('>I8I8', head, 10)
    -- Not touched since the record was loaded.
    if expires > tonumber(ARGV[3]) and seen <= struct.unpack('>I8', ARGV[1], 18) then
        local stored = redis.pcall('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
        return stored.err and stored or 1
    end
end
