-- KEYS index | ARGV prefix skip: a page of what is revoked, the lasting ones first, and how many there are
local call, now, names, keys, out = redis.call, '(' .. digits(now_ms()), {}, {}, {}
for i, name in ipairs(call('ZREVRANGEBYSCORE', KEYS[1], '+inf', now, 'LIMIT', ARGV[2], 500)) do
  names[i], keys[2 * i - 1], keys[2 * i] = name, ARGV[1] .. 'revoked:' .. name, ARGV[1] .. 'revocation:' .. name
end
if declare then
  declare(keys)
end
for i, name in ipairs(names) do
  local key = keys[2 * i - 1]
  out[i] = {name, call('GET', key) or '', call('GET', keys[2 * i]) or '', digits(call('PTTL', key))}
end
return {KEYS[1], call('ZCOUNT', KEYS[1], now, '+inf'), out}
