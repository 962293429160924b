-- KEYS run | ARGV text known: the turns that its reader knew, after which this one takes nothing back; empty: it takes back
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
local turns = tonumber(redis.call('HGET', KEYS[1], 'turns'))
if ARGV[2] ~= '' and turns ~= tonumber(ARGV[2]) then
  return {KEYS[1], 'stale'}
end
local waits = ARGV[2] == '' and what_waits(KEYS[1])
turns = digits(turns + 1)
redis.call('HSET', KEYS[1], 'turn:' .. turns, ARGV[1], 'turns', turns)
redis.call('HINCRBY', KEYS[1], 'rev', 1)
if waits then
  take_back(KEYS[1], waits)
end
return {KEYS[1], 'ok'}
