-- KEYS: session. ARGV: record, expires, now, expected format and version. 1 if it is replaced, 0 if it
-- is gone, else the record that is there.
local head = live(KEYS[1], tonumber(ARGV[3]))
if head == '' then
    return 0
end
if not readable(head) or head:sub(1, 9) ~= ARGV[4] then
    return redis.call('GET', KEYS[1])
end
set(KEYS[1], ARGV[1], ARGV[2])
return 1
