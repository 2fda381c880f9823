-- KEYS: session. ARGV: record, expires, now, expected format and version. 1 if it is replaced, 0 if it
-- is gone, else the record that is there.
local refused = refusal(KEYS[1], tonumber(ARGV[3]), ARGV[4])
if refused then
    return refused
end
set(KEYS[1], ARGV[1], ARGV[2])
return 1
