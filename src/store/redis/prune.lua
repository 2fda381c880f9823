-- KEYS: an owner's index. ARGV: owner, prefix of the sessions.
belonging(redis.call('ZRANGE', KEYS[1], 0, -1), KEYS[1], ARGV[1], ARGV[2])
return 1
