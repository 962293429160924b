-- KEYS run | ARGV text
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
return {KEYS[1], 'ok'}
