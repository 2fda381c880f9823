-- KEYS: the owner's index, the owner's revocations. ARGV: id to keep ('' for none), now. The claims whose
-- sessions are to end.
revoke(KEYS[2], ARGV[1], tonumber(ARGV[2]))
return claims(KEYS[1])
