-- KEYS run | ARGV header revision: the header of a run that is open and unchanged; it does not expire later for it
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
if redis.call('HGET', KEYS[1], 'rev') ~= string.match(ARGV[2], '^(%d+)%.') then
  return {KEYS[1], 'stale'}
end
redis.call('HSET', KEYS[1], 'header', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return {KEYS[1], 'ok'}
