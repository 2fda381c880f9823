-- What the scripts begin with that serve a cluster, after `../common.lua`. `cluster.rs` says how they play
-- together.

-- What a value begins with whose session evicts others: it is written, but does not count before these
-- are gone. The format of no record.
local EVICTING = 224

-- What is in an owner's index: id, number of the claim, milliseconds since it was made, and so on.
local function claims(index)
    local found, now = {}, microseconds()
    local all = redis.call('ZRANGE', index, 0, -1, 'WITHSCORES')
    for n = 1, #all, 2 do
        local claim = tonumber(all[n + 1])
        local age = math.max(math.floor((now - claim) / 1000), 0)
        table.insert(found, all[n])
        table.insert(found, text(claim))
        table.insert(found, text(age))
    end
    return found
end

-- From now on, this owner's claims on this session are void up to that number.
local function void(fence, owner, claim)
    although_full(fence)
    local before = tonumber(redis.call('HGET', fence, owner) or '0')
    redis.call('HSET', fence, owner, text(math.max(before, claim)))
    redis.call('PEXPIRE', fence, REMEMBERED)
end
