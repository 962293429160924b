-- KEYS hold | ARGV nonce take: whether a hold may be answered with this nonce now; with `take` 1 it is used by that
local ends = redis.call('HGET', KEYS[1], 'nonce:' .. ARGV[1])
if not ends or tonumber(ends) <= now_ms() then
  return {KEYS[1], 'nonce'}
end
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[1], 'nonce:' .. ARGV[1])
end
return {KEYS[1], 'ok'}
