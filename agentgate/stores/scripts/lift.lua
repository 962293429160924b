-- KEYS revocation told index | ARGV name
local old = redis.call('GET', KEYS[1])
if not old or old == 'signed' then
  return {KEYS[1], old or 'missing'}
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return {KEYS[1], 'lifted'}
