-- KEYS: session, its fence. ARGV: value, expires, now, expected format and version ('' for a new session),
-- owner, claim. 1 if it is stored, 0 if it is gone, 2 if the id is taken, 5 if the claim is void, else the
-- record that is there.
local void_up_to = tonumber(redis.call('HGET', KEYS[2], ARGV[5]) or '0')
if tonumber(ARGV[6]) <= void_up_to then
    return 5
end
local refused = refusal(KEYS[1], tonumber(ARGV[3]), ARGV[4])
if refused then
    return refused
end
set(KEYS[1], ARGV[1], ARGV[2])
return 1
