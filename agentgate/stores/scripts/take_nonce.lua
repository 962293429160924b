-- KEYS hold revoked... | ARGV nonce take opened: whether a hold may be answered with this nonce now, and whether who answers is revoked for what
-- was opened then; with `take` 1 the nonce is used by that
local gone = revoked({unpack(KEYS, 2)}, tonumber(ARGV[3])) and 'yes' or 'no'
local ends = redis.call('HGET', KEYS[1], 'nonce:' .. ARGV[1])
if not ends or tonumber(ends) <= now_ms() then
  return {KEYS[1], 'nonce', gone}
end
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[1], 'nonce:' .. ARGV[1])
end
return {KEYS[1], 'ok', gone}
