-- KEYS run
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
local waits = what_waits(KEYS[1])
redis.call('HSET', KEYS[1], 'closed', '1')
redis.call('HINCRBY', KEYS[1], 'rev', 1)
take_back(KEYS[1], waits)
return {KEYS[1], 'ok'}
