-- KEYS run calls | ARGV text takes_back
local run = redis.call('HMGET', KEYS[1], 'turns', 'closed')
if not run[1] then
  return {KEYS[1], 'missing'}
end
if run[2] then
  return {KEYS[1], 'closed'}
end
local turns = digits(tonumber(run[1]) + 1)
redis.call('HSET', KEYS[1], 'turn:' .. turns, ARGV[1], 'turns', turns)
redis.call('HINCRBY', KEYS[1], 'rev', 1)
if ARGV[2] == '1' then
  take_back(KEYS[1], KEYS[2])
end
return {KEYS[1], 'ok'}
