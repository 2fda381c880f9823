-- KEYS: the owner's index, the owner's revocations. ARGV: owner, id to keep ('' for none), now, prefix of
-- the sessions. The number of live sessions removed.
local owner, keep, now, sessions = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local removed = 0
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, session in ipairs(belonging(ids, KEYS[1], owner, sessions)) do
    if session.id ~= keep then
        redis.call('UNLINK', sessions .. session.id .. '}')
        removed = removed + (ended(session.head, now) and 0 or 1)
        redis.call('ZREM', KEYS[1], session.id)
    end
end
revoke(KEYS[2], keep, now)
return removed
