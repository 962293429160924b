-- KEYS index | ARGV prefix most: how many of the newest `most` holds wait, and since when the oldest of them does (ms; 0: none).
-- The holds are keys too, in the same slot; which ones is known only here.
local open, oldest = 0, 0
for _, id in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1)) do
  local hold = read_hold(ARGV[1] .. id)
  if hold[1] == 'pending' then
    local at = tonumber(hold[5])
    open, oldest = open + 1, oldest == 0 and at or math.min(oldest, at)
  end
end
return {KEYS[1], digits(open), digits(oldest)}
