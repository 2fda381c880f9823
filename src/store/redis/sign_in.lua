-- KEYS: session, the owner's index, the owner's revocations. ARGV: record, expires, now, expected format
-- and version ('' for a new session), id, owner, authenticated, began, the most sessions (0 for any
-- number), whether to refuse one more (1 or 0), prefix of the sessions, until when to keep the index. 1 if it is
-- stored, 0 if it is gone, 2 if the id is taken, 3 if the owner was revoked, 4 if there are too many, else
-- the record that is there.
local now, id, owner = tonumber(ARGV[3]), ARGV[5], ARGV[6]
local max, sessions = tonumber(ARGV[9]), ARGV[11]

local refused = refusal(KEYS[1], now, ARGV[4])
if refused then
    return refused
end
if is_revoked(KEYS[3], id, tonumber(ARGV[8])) then
    return 3
end

if max == 0 then
    -- A few at a time, so that those that are gone become fewer even if each sign-in adds one.
    belonging(redis.call('ZRANDMEMBER', KEYS[2], 4), KEYS[2], owner, sessions)
else
    local others = {} -- From the one that signed in earliest.
    local ids = redis.call('ZRANGE', KEYS[2], 0, -1)
    for _, session in ipairs(belonging(ids, KEYS[2], owner, sessions)) do
        if session.id ~= id and not (readable(session.head) and expires(session.head) <= now) then
            table.insert(others, session.id)
        end
    end
    local surplus = #others - (max - 1)
    if surplus > 0 and ARGV[10] == '1' then
        return 4
    end
    for n = 1, surplus do
        redis.call('UNLINK', sessions .. others[n] .. '}')
        redis.call('ZREM', KEYS[2], others[n])
    end
end

set(KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[7], id)
keep_until(KEYS[2], tonumber(ARGV[12]))
return 1
