-- KEYS jti burns | ARGV digest gen binding jti revoked...: whether a burn would take this token; changes nothing
local mints, clock = beside(KEYS[2])
local _, minted_jti, minted_at = minting(redis.call('HGET', mints, ARGV[1] .. ':mint'))
local withdrawn, opened = unpack(redis.call('HMGET', clock, 'withdrawn', 'opened'))
if taken_back(minted_at, withdrawn) or revoked({unpack(ARGV, 5)}, tonumber(opened or '0')) then
  return {KEYS[1], 'revoked'}
end
if lineage() ~= ARGV[2] then
  return {KEYS[1], 'lineage'}
end
if redis.call('GET', KEYS[1]) ~= ARGV[3] or minted_jti ~= ARGV[4] or redis.call('HGET', KEYS[2], ARGV[1] .. ':by') == ARGV[4] then
  return {KEYS[1], 'used'}
end
return {KEYS[1], 'live'}
