-- KEYS run calls | ARGV most: one more denial; with the last that is left the run closes
local run = redis.call('HMGET', KEYS[1], 'rev', 'closed')
if not run[1] then
  return {KEYS[1], 'missing'}
end
if run[2] then
  return {KEYS[1], 'closed'}
end
if redis.call('HINCRBY', KEYS[1], 'denials', 1) < tonumber(ARGV[1]) then
  return {KEYS[1], 'ok'}
end
redis.call('HSET', KEYS[1], 'closed', 'denials')
redis.call('HINCRBY', KEYS[1], 'rev', 1)
take_back(KEYS[1], KEYS[2])
return {KEYS[1], 'spent'}
