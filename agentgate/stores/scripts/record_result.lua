-- KEYS burns | ARGV digest facts: once, only for a redeemed call that did not fail
local call = redis.call('HMGET', KEYS[1], ARGV[1] .. ':status', ARGV[1] .. ':facts', ARGV[1] .. ':outcome', 'rev')
if call[1] ~= 'redeemed' then
  return {KEYS[1], 'not_redeemed'}
end
if call[2] or call[3] == 'failed' then
  return {KEYS[1], 'already_recorded'}
end
local rev = digits(tonumber(call[4] or '0') + 1)
redis.call('HSET', KEYS[1], ARGV[1] .. ':facts', ARGV[2], 'rev', rev, 'changed:' .. rev, ARGV[1])
return {KEYS[1], 'ok'}
