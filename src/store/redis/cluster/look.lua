-- KEYS: session, its fence. ARGV: owner, now, the claim to make void unless it is this owner's live session (''
-- for none). When the owner signed in, as text, if it is live; 2 if it is over but still there, 0 if it
-- is not this owner's; {value} if it evicts others.
local head = redis.pcall('GETRANGE', KEYS[1], 0, HEAD - 1)
if type(head) == 'string' and head:byte(1) == EVICTING then
    return { redis.call('GET', KEYS[1]) }
end
local is_owners = belongs(head, ARGV[1])
if is_owners and not readable(head) then
    return '0'
end
if is_owners and expires(head) > tonumber(ARGV[2]) then
    local _, signed_in = owner_of(head)
    return text(signed_in)
end
if ARGV[3] ~= '' then
    void(KEYS[2], ARGV[1], tonumber(ARGV[3]))
end
return is_owners and 2 or 0
