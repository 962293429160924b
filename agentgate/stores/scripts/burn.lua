-- KEYS jti calls | ARGV digest gen binding jti revoked...
-- The revocations are keys too, in the same slot; passed as KEYS they would require the right to write them, which a tool server lacks.
local digest = ARGV[1]
local record = redis.call('HMGET', KEYS[2], digest .. ':status', digest .. ':mint', digest .. ':head', 'rev')
local _, minted_jti, minted_at = minting(record[2])

-- (1) revoked
local revocations = {}
for i = 5, #ARGV do
  revocations[i - 4] = ARGV[i]
end
if revoked(revocations, tonumber(minted_at or '0')) then
  return {KEYS[1], 'revoked', ''}
end

-- (2) minted in another lineage of this store
if lineage() ~= ARGV[2] then
  return {KEYS[1], 'lineage', ''}
end

-- (3) the single-use key: only one burn can take it
local binding = redis.call('GETDEL', KEYS[1])
if not binding then
  return {KEYS[1], 'used', ''}
end

-- (4) minted for another call, audience or sender key
if binding ~= ARGV[3] then
  return {KEYS[1], 'binding', ''}
end

-- (5) the call's record names this token and is not redeemed yet
if record[1] ~= 'minted' or minted_jti ~= ARGV[4] then
  return {KEYS[1], 'used', ''}
end

local rev = digits(tonumber(record[4] or '0') + 1)
redis.call('HSET', KEYS[2], digest .. ':status', 'redeemed', digest .. ':at', digits(now_ms()), 'rev', rev, 'changed:' .. rev, digest)
return {KEYS[1], 'ok', record[3]}
