-- KEYS kept | ARGV value ttl_ms replace: the first stays, unless it may be replaced
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return {KEYS[1], 'ok'}
end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {KEYS[1], 'ok'}
end
return {KEYS[1], 'exists'}
