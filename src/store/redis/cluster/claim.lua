-- KEYS: the owner's index, the owner's revocations. ARGV: id, began, the most sessions (0 for any number),
-- until when to keep the index, and then id and claim of each entry that does not count. {claim, number of
-- entries} if the session may be written, 3 if the owner was revoked, {4, claims} if the caller has to look
-- at them.
local index, id, max = KEYS[1], ARGV[1], tonumber(ARGV[3])
if is_revoked(KEYS[2], id, tonumber(ARGV[2])) then
    return 3
end

if max > 0 then
    local others = redis.call('ZCARD', index)
    if redis.call('ZSCORE', index, id) then
        others = others - 1
    end
    for n = 5, #ARGV, 2 do
        if tonumber(redis.call('ZSCORE', index, ARGV[n]) or '') == tonumber(ARGV[n + 1]) then
            others = others - 1
        end
    end
    if others >= max then
        return { 4, claims(index) }
    end
end

-- Claims are numbered by time, so that the numbers rise even if there is no entry left to tell the last one.
local last = tonumber(redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2] or '0')
local claim = text(math.max(microseconds(), last + 1))
redis.call('ZADD', index, claim, id)
keep_until(index, tonumber(ARGV[4]))
return { claim, redis.call('ZCARD', index) }
