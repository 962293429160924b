-- KEYS kept | ARGV value ttl_ms: the first stays
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {KEYS[1], 'ok'}
end
return {KEYS[1], 'exists'}
