-- KEYS index | ARGV prefix skip: a page of what is revoked, the lasting ones first, and how many there are
local call, prefix, now, out = redis.call, ARGV[1], '(' .. digits(now_ms()), {}
for i, name in ipairs(call('ZREVRANGEBYSCORE', KEYS[1], '+inf', now, 'LIMIT', ARGV[2], 500)) do
  local key = prefix .. 'revoked:' .. name
  out[i] = {name, call('GET', key) or '', call('GET', prefix .. 'revocation:' .. name) or '', digits(call('PTTL', key))}
end
return {KEYS[1], call('ZCOUNT', KEYS[1], now, '+inf'), out}
