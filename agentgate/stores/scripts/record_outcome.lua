-- KEYS burns | ARGV digest outcome jti attempt: once, only from the redemption by this token; `unknown` may become known
-- Whoever does not know whether its own attempt burned the token names it: another's, which burned it, may be running the tool.
local call = redis.call('HMGET', KEYS[1], ARGV[1] .. ':status', ARGV[1] .. ':outcome', ARGV[1] .. ':by', 'rev', ARGV[1] .. ':attempt')
if call[1] ~= 'redeemed' or call[3] ~= ARGV[3] or (ARGV[4] ~= '' and call[5] ~= ARGV[4]) then
  return {KEYS[1], 'not_redeemed'}
end
if call[2] and call[2] ~= '' and (call[2] ~= 'unknown' or ARGV[2] == 'unknown') then
  return {KEYS[1], 'already_recorded'}
end
redis.call('HSET', KEYS[1], ARGV[1] .. ':outcome', ARGV[2])
if ARGV[2] == 'failed' or ARGV[2] == 'not_run' then -- no earlier call any more: readers must see it
  local rev = digits(tonumber(call[4] or '0') + 1)
  redis.call('HSET', KEYS[1], 'rev', rev, 'changed:' .. rev, ARGV[1])
end
return {KEYS[1], 'ok'}
