-- KEYS: session, its fence. ARGV: owner, the claim to make void if there is nothing to end ('' for none). 1 if it
-- was this owner's session and is removed, else 0.
if belongs(redis.pcall('GETRANGE', KEYS[1], 0, HEAD - 1), ARGV[1]) then
    return redis.call('UNLINK', KEYS[1])
end
if ARGV[2] ~= '' then
    void(KEYS[2], ARGV[1], tonumber(ARGV[2]))
end
return 0
