-- What every script begins with.
--
-- A record lies in its key as `Record::encode` says: format, version, expires, seen, flags ... Times
-- are less than 2^53, so a number of Lua's holds them; a version need not be, and is compared as bytes.

local HEAD = 25 -- Format, version, expires, seen.
local HEAD_AND_OWNER = 26 + 32 + 16 + 40 + 1 + 255 -- As long as it can be.

local function number(bytes, at)
    return (struct.unpack('>I8', bytes, at))
end

local function text(number)
    return string.format('%.0f', number)
end

-- Whether this release knows what the bytes mean.
local function readable(head)
    return #head >= HEAD and head:byte(1) == 1
end

local function expires(head)
    return number(head, 10)
end

-- The head of the record in a key, '' if there is none that is live. One that is not readable counts as
-- live: whoever can read it decides.
local function live(key, now)
    local head = redis.call('GETRANGE', key, 0, HEAD - 1)
    if readable(head) and expires(head) <= now then
        return ''
    end
    return head
end

local function set(key, record, expires)
    redis.call('SET', key, record, 'PXAT', expires)
end

local function owner_of(head)
    local flags = head:byte(26) or 0
    if flags % 4 < 2 then
        return nil
    end
    local at = flags % 2 == 1 and 115 or 75
    return head:sub(at + 1, at + (head:byte(at) or 0))
end

-- Those of the ids in an owner's index whose session is still this owner's, with the heads of their
-- records. The others are dropped from the index. Whose a record of a later release is cannot be read, so
-- the index is believed: rather than a revoked session lives on, one that changed hands ends, too.
local function belonging(ids, index, owner, sessions)
    local found = {}
    for _, id in ipairs(ids) do
        local head = redis.pcall('GETRANGE', sessions .. id, 0, HEAD_AND_OWNER - 1)
        local is_text = type(head) == 'string'
        local later_format = is_text and #head > 0 and head:byte(1) > 1
        if later_format or is_text and readable(head) and owner_of(head) == owner then
            table.insert(found, { id = id, head = head })
        else
            redis.call('ZREM', index, id)
        end
    end
    return found
end
