-- KEYS hold index | ARGV body ttl_ms id: an existing hold is left as it is
local hold = redis.call('HMGET', KEYS[1], 'state', 'body', 'rev', 'call')
if hold[1] then
  return {KEYS[1], hold[1], hold[2], hold[3], hold[4]}
end
local now = now_ms()
redis.call('HSET', KEYS[1], 'state', 'waiting', 'body', ARGV[1], 'rev', '1', 'call', '')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', digits(now))
redis.call('ZADD', KEYS[2], digits(now + tonumber(ARGV[2])), ARGV[3])
return {KEYS[1], 'waiting', ARGV[1], '1', ''}
