-- What every script begins with.
--
-- A record lies in its key as `Record::encode` says: format, version, expires, seen, flags ... Times
-- are less than 2^53, so a number of Lua's holds them; a version need not be, and is compared as bytes.

-- Runs a script's own part. Before Redis 7.0, the error of a command within reaches the client wrapped in another
-- one; this takes it out.
local function run(script)
    local is_done, answer = pcall(script)
    if is_done then
        return answer
    end
    local why = type(answer) == 'table' and answer.err or tostring(answer)
    why = why:gsub('^@user_script: ?%d+: %-?', ''):gsub('%s+$', '')
    return redis.error_reply(why)
end

local LEAST = 25 -- Format, version, expires, seen.
local HEAD = 26 + 32 + 16 + 40 + 1 + 255 + 8 -- All but policy and data, as long as it can be.

-- How long a revocation is remembered: longer than any sign-in is under way, and than an hour.
local REMEMBERED = 2 * 60 * 60 * 1000

local function number(bytes, at)
    return (struct.unpack('>I8', bytes, at))
end

local function text(number)
    return string.format('%.0f', number)
end

-- Whether this release knows what the bytes mean.
local function readable(head)
    return #head >= LEAST and head:byte(1) == 1
end

local function expires(head)
    return number(head, 10)
end

local function ended(head, now)
    return readable(head) and expires(head) <= now
end

-- The head of the record in a key, '' if there is none that is live. One that is not readable counts as
-- live: whoever can read it decides.
local function live(key, now)
    local head = redis.call('GETRANGE', key, 0, HEAD - 1)
    return ended(head, now) and '' or head
end

local function set(key, record, expires)
    redis.call('SET', key, record, 'PXAT', expires)
end

-- Why a record cannot be stored, as a script's answer: it is gone, the id is taken, or the record that is
-- there. nil if it can.
local function refusal(key, now, expected)
    local head = live(key, now)
    if expected == '' then
        return head ~= '' and 2 or nil
    elseif head == '' then
        return 0
    elseif not readable(head) or head:sub(1, 9) ~= expected then
        return redis.call('GET', key)
    end
end

-- A record's owner, and when this one signed in or else the session began; nil without an owner.
local function owner_of(head)
    local flags = head:byte(26) or 0
    if flags % 4 < 2 then
        return nil
    end
    local at = flags % 2 == 1 and 115 or 75
    local length = head:byte(at) or 0
    local since = flags % 8 >= 4 and at + 1 + length or 59
    local signed_in = #head >= since + 7 and number(head, since) or 0
    return head:sub(at + 1, at + length), signed_in
end

-- Whether what is in a session's key is this owner's. Whose a record of a later release is cannot be read,
-- so the index is believed: rather than a revoked session lives on, one that changed hands ends, too.
local function belongs(head, owner)
    if type(head) ~= 'string' then -- A key of another type.
        return false
    end
    local later_format = #head > 0 and head:byte(1) > 1
    return later_format or readable(head) and owner_of(head) == owner
end

-- Those of the ids in an owner's index whose session is still this owner's, with the heads of their
-- records. The others are dropped from the index.
local function belonging(ids, index, owner, session)
    local found = {}
    for _, id in ipairs(ids) do
        local head = redis.pcall('GETRANGE', session .. id .. '}', 0, HEAD - 1)
        if belongs(head, owner) then
            table.insert(found, { id = id, head = head })
        else
            redis.call('ZREM', index, id)
        end
    end
    return found
end

-- Whether the owner was revoked since then, but for a session with this id.
local function is_revoked(key, id, began)
    local revoked = redis.call('HMGET', key, 'at', 'kept', 'kept_not')
    local last = tonumber((revoked[2] == id and revoked[3] or revoked[1]) or '')
    return last and last >= began
end

-- A full server runs a script to its end once that has written something. For what ends sessions, which must
-- be possible also then.
local function although_full(key)
    redis.call('PERSIST', key)
end

-- Remembers the latest revocation, which session it kept, and the latest one that did not keep that session.
-- By a clock that is behind, an earlier time may come later.
local function revoke(key, keep, now)
    although_full(key)
    local before = redis.call('HMGET', key, 'at', 'kept', 'kept_not')
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
    redis.call('HSET', key, 'at', text(at), 'kept', kept, 'kept_not', kept_not and text(kept_not) or '')
    redis.call('PEXPIRE', key, REMEMBERED)
end

local function microseconds()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

-- Keeps a key until a time and for as long as revocations are remembered, if it would end earlier. What
-- `PEXPIRE ... GT` does from Redis 7.0 on.
local function keep_until(key, time)
    local ttl = math.max(time - math.floor(microseconds() / 1000), 0) + REMEMBERED
    if redis.call('PTTL', key) < ttl then
        redis.call('PEXPIRE', key, text(ttl))
    end
end
