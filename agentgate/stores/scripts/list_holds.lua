-- KEYS index | ARGV prefix calls: the newest 1000 holds that have not expired (of one run where `calls`, the key of its calls, is given),
-- at most 8 MiB of them; and 1 where there are more. They are keys too, in the same slot; which ones is known only here.
local out, size = {}, 0
local ids = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', '(' .. digits(now_ms()), 'LIMIT', 0, 1001)
local more = table.remove(ids, 1001) and 1 or 0
for _, id in ipairs(ids) do
  local hold = read_hold(ARGV[1] .. id)
  if hold[1] and (ARGV[2] == '' or hold[6] == ARGV[2]) then
    size = size + #hold[2]
    if size > 8388608 then
      more = 1
      break
    end
    out[#out + 1] = {hold[1], hold[2], hold[3], hold[4]}
  end
end
return {KEYS[1], out, more}
