-- KEYS run | ARGV header revision: the header of a run that is open and unchanged; it does not expire later for it
local run = redis.call('HMGET', KEYS[1], 'rev', 'closed')
if not run[1] then
  return {KEYS[1], 'missing'}
end
if run[2] then
  return {KEYS[1], 'closed'}
end
if run[1] ~= string.match(ARGV[2], '^(%d+)%.') then
  return {KEYS[1], 'stale'}
end
redis.call('HSET', KEYS[1], 'header', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
return {KEYS[1], 'ok'}
