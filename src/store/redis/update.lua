-- KEYS: session. ARGV: record, expires, now, expected format and version. 1 if it is replaced, 0 if it
-- is gone, else the record that is there.
local record, ends, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local refused = refusal(KEYS[1], now, ARGV[4])
if refused then
    return refused
end
-- A touch that came in since the record was loaded stays.
local head = live(KEYS[1], now)
local seen, given = number(head, 18), number(record, 18)
if given < now and given < seen then
    local latest = math.max(expires(head), expires(record))
    record = record:sub(1, 9) .. struct.pack('>I8I8', latest, seen) .. record:sub(26)
    ends = text(latest)
end
set(KEYS[1], record, ends)
return 1
