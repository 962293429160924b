-- KEYS hold index calls cool | ARGV body ttl_ms answer_ms id sensitive: an existing hold is left as it is, unless it was cancelled. While
-- `cool` is there, a person refused this act of the run a while ago, and nobody is asked again
local hold = read_hold(KEYS[1])
if hold[1] and hold[1] ~= 'cancelled' then
  return {KEYS[1], hold[1], hold[2], hold[3], hold[4]}
end
if redis.call('EXISTS', KEYS[4]) == 1 then
  return {KEYS[1], 'cooling', '', '', ''}
end
local now, rev = now_ms(), digits(tonumber(hold[3] or '0') + 1)
redis.call('HSET', KEYS[1], 'state', 'pending', 'body', ARGV[1], 'rev', rev, 'call', '', 'at', digits(now), 'calls', KEYS[3],
  'deadline', digits(now + tonumber(ARGV[3])), 'sensitive', ARGV[5], 'cool', KEYS[4], 'time', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', digits(now))
redis.call('ZADD', KEYS[2], digits(now + tonumber(ARGV[2])), ARGV[4])
return {KEYS[1], 'pending', ARGV[1], rev, ''}
