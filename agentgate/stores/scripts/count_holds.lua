-- KEYS index | ARGV prefix most: how many of the newest `most` holds wait, and since when the oldest of them does (ms; 0: none).
local open, oldest, holds = 0, 0, {}
for i, id in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1)) do
  holds[i] = ARGV[1] .. id
end
if declare then
  declare_holds(holds)
end
for _, key in ipairs(holds) do
  local hold = read_hold(key)
  if hold[1] == 'pending' then
    local at = tonumber(hold[5])
    open, oldest = open + 1, oldest == 0 and at or math.min(oldest, at)
  end
end
return {KEYS[1], digits(open), digits(oldest)}
