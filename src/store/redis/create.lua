-- KEYS: session. ARGV: record, expires, now. 1 if it is stored, 0 if the id is taken.
if live(KEYS[1], tonumber(ARGV[3])) ~= '' then
    return 0
end
set(KEYS[1], ARGV[1], ARGV[2])
return 1
