-- KEYS run | ARGV header turn ttl_ms
if redis.call('EXISTS', KEYS[1]) == 1 then
  return {KEYS[1], 'exists'}
end
redis.call('HSET', KEYS[1], 'header', ARGV[1], 'rev', '1', 'turns', '1', 'turn:1', ARGV[2],
  'opened', digits(now_ms()), 'ends', digits(now_ms() + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {KEYS[1], 'ok'}
