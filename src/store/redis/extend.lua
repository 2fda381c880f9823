-- KEYS: an owner's index. ARGV: until when to keep it at least.
keep_until(KEYS[1], tonumber(ARGV[1]))
return 1
