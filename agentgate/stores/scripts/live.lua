-- KEYS jti calls | ARGV digest gen binding jti revoked...: whether a burn would take this token; changes nothing
local record = redis.call('HMGET', KEYS[2], ARGV[1] .. ':mint', ARGV[1] .. ':by', 'withdrawn', 'opened')
local _, minted_jti, minted_at = minting(record[1])
local revocations = {}
for i = 5, #ARGV do
  revocations[i - 4] = ARGV[i]
end
if taken_back(minted_at, record[3]) or revoked(revocations, tonumber(record[4] or '0')) then
  return {KEYS[1], 'revoked'}
end
if lineage() ~= ARGV[2] then
  return {KEYS[1], 'lineage'}
end
if redis.call('GET', KEYS[1]) ~= ARGV[3] or minted_jti ~= ARGV[4] or record[2] == ARGV[4] then
  return {KEYS[1], 'used'}
end
return {KEYS[1], 'live'}
