-- What `create.lua` nearly always comes to, as in `update_at_once.lua`: no key is there, not even one that has
-- expired.
local stored = redis.pcall('SET', KEYS[1], ARGV[1], 'NX', 'PXAT', ARGV[2])
if stored then
    return stored.err and stored or 1
end
