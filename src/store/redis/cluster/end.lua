-- KEYS: session, its fence. ARGV: owner, the claim to make void if there is nothing to end ('' for none), now. 1 if
-- it was this owner's live session and is removed, else 0.
local head = redis.pcall('GETRANGE', KEYS[1], 0, HEAD - 1)
if belongs(head, ARGV[1]) then
    redis.call('UNLINK', KEYS[1])
    return ended(head, tonumber(ARGV[3])) and 0 or 1
end
if ARGV[2] ~= '' then
    void(KEYS[2], ARGV[1], tonumber(ARGV[2]))
end
return 0
