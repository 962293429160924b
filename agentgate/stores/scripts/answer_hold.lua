-- KEYS hold | ARGV expected_rev body state: a pending hold takes any answer, a released one only a no
local hold = read_hold(KEYS[1])
if not hold[1] then
  return {KEYS[1], 'missing'}
end
if hold[1] ~= 'pending' and not (hold[1] == 'released' and ARGV[3] == 'refused') then
  return {KEYS[1], 'final'}
end
if hold[3] ~= ARGV[1] then
  return {KEYS[1], 'stale'}
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'body', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return {KEYS[1], 'ok'}
