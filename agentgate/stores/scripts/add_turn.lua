-- KEYS run calls | ARGV text takes_back
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
local turns = digits(tonumber(redis.call('HGET', KEYS[1], 'turns')) + 1)
redis.call('HSET', KEYS[1], 'turn:' .. turns, ARGV[1], 'turns', turns)
redis.call('HINCRBY', KEYS[1], 'rev', 1)
if ARGV[2] == '1' then
  take_back(KEYS[1], KEYS[2])
end
return {KEYS[1], 'ok'}
