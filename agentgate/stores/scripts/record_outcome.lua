-- KEYS calls | ARGV digest outcome: once, only for a redeemed call; `unknown` may become known
local call = redis.call('HMGET', KEYS[1], ARGV[1] .. ':status', ARGV[1] .. ':outcome')
if call[1] ~= 'redeemed' then
  return {KEYS[1], 'not_redeemed'}
end
if call[2] and (call[2] ~= 'unknown' or ARGV[2] == 'unknown') then
  return {KEYS[1], 'already_recorded'}
end
redis.call('HSET', KEYS[1], ARGV[1] .. ':outcome', ARGV[2])
return {KEYS[1], 'ok'}
