-- KEYS: the owner's index, the owner's revocations. ARGV: owner, id to keep ('' for none), now, prefix of
-- the sessions, how long to remember it. The number of sessions removed.
local owner, keep, now, sessions = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

local removed = 0
local ids = redis.call('ZRANGE', KEYS[1], 0, -1)
for _, session in ipairs(belonging(ids, KEYS[1], owner, sessions)) do
    if session.id ~= keep then
        removed = removed + redis.call('UNLINK', sessions .. session.id)
        redis.call('ZREM', KEYS[1], session.id)
    end
end

-- The latest revocation, which session it kept, and the latest one that did not keep that session. By a
-- clock that is behind, an earlier time may come later.
local before = redis.call('HMGET', KEYS[2], 'at', 'kept', 'kept_not')
local at, kept, kept_not = tonumber(before[1] or ''), before[2], tonumber(before[3] or '')
if not at then
    at, kept = now, keep
elseif kept == keep then
    at = math.max(at, now)
elseif now < at then
    kept_not = math.max(kept_not or now, now)
else
    at, kept, kept_not = now, keep, at
end
redis.call('HSET', KEYS[2], 'at', text(at), 'kept', kept, 'kept_not', kept_not and text(kept_not) or '')
redis.call('PEXPIRE', KEYS[2], ARGV[5])
return removed
