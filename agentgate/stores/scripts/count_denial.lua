-- KEYS run | ARGV most, kind: one more denial of a kind; with the last of the 'denials' the run closes
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
if redis.call('HINCRBY', KEYS[1], ARGV[2], 1) < tonumber(ARGV[1]) then
  return {KEYS[1], 'ok'}
elseif ARGV[2] == 'misformed' then
  return {KEYS[1], 'spent'}
end
redis.call('HSET', KEYS[1], 'closed', 'denials')
redis.call('HINCRBY', KEYS[1], 'rev', 1)
take_back(KEYS[1])
return {KEYS[1], 'spent'}
