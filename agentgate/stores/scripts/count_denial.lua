-- KEYS run | ARGV most, kind: one more denial of a kind; with the last of the 'denials' the run closes
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
local last = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or '0') + 1 >= tonumber(ARGV[1])
local waits = last and ARGV[2] ~= 'misformed' and what_waits(KEYS[1])
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
if not last then
  return {KEYS[1], 'ok'}
elseif not waits then
  return {KEYS[1], 'spent'}
end
redis.call('HSET', KEYS[1], 'closed', 'denials')
redis.call('HINCRBY', KEYS[1], 'rev', 1)
take_back(KEYS[1], waits)
return {KEYS[1], 'spent'}
