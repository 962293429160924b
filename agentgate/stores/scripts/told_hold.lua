-- KEYS hold | ARGV hook told at: what a hook was told of the hold that was opened then; 'all': there will be no more
if (redis.call('HGET', KEYS[1], 'at') or '0') ~= ARGV[3] or redis.call('HEXISTS', KEYS[1], 'state') == 0 then
  return {KEYS[1], 'missing'}
end
redis.call('HSET', KEYS[1], 'told:' .. ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[1], 'telling:' .. ARGV[1])
return {KEYS[1], 'ok'}
