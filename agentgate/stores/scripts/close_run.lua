-- KEYS run calls
local run = redis.call('HMGET', KEYS[1], 'rev', 'closed')
if not run[1] then
  return {KEYS[1], 'missing'}
end
if run[2] then
  return {KEYS[1], 'closed'}
end
redis.call('HSET', KEYS[1], 'closed', '1')
redis.call('HINCRBY', KEYS[1], 'rev', 1)
take_back(KEYS[1], KEYS[2])
return {KEYS[1], 'ok'}
