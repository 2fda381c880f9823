-- KEYS: an owner's index.
return claims(KEYS[1])
