-- KEYS: session. ARGV: expires, now, how long after a sign-in the owner's index is kept anyway ('' if it is kept
-- long enough). 1 if it is live, 0 if it is gone, {owner} if that index would end earlier, else the record
-- that is not readable.
local now = tonumber(ARGV[2])
local head = live(KEYS[1], now)
if head == '' then
    return 0
end
if not readable(head) then
    return redis.call('GET', KEYS[1])
end
local ends = math.max(expires(head), tonumber(ARGV[1]))
local owner, signed_in = owner_of(head)
if owner and ARGV[3] ~= '' and ends > signed_in + tonumber(ARGV[3]) then
    return { owner }
end
local seen = math.max(number(head, 18), now)
redis.call('SETRANGE', KEYS[1], 9, struct.pack('>I8I8', ends, seen))
redis.call('PEXPIREAT', KEYS[1], text(ends))
return 1
