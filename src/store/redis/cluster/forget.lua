-- KEYS: an owner's index. ARGV: id and claim of each entry to drop, unless it was claimed again.
for n = 1, #ARGV, 2 do
    if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[n]) or '') == tonumber(ARGV[n + 1]) then
        redis.call('ZREM', KEYS[1], ARGV[n])
    end
end
return 1
