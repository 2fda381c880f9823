-- KEYS: session. ARGV: what its value begins with while it evicts others, who are gone by now.
local evicting = ARGV[1]
if redis.call('GETRANGE', KEYS[1], 0, #evicting - 1) == evicting then
    redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], #evicting, -1), 'KEEPTTL')
end
return 1
