-- KEYS hold | ARGV expected_rev body state
local hold = read_hold(KEYS[1])
if not hold[1] then
  return {KEYS[1], 'missing'}
end
if hold[1] == 'refused' or hold[1] == 'consumed' or hold[1] == 'cancelled' then
  return {KEYS[1], 'final'}
end
if hold[3] ~= ARGV[1] then
  return {KEYS[1], 'stale'}
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'body', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return {KEYS[1], 'ok'}
