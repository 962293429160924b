-- KEYS jti burns history | ARGV digest gen binding jti seen attempt brokers revoked...
-- What a tool server only reads is built here from its own keys: passed as KEYS it would require the right to write it.
local digest, own = ARGV[1], KEYS[2]
local mints, clock = beside(own)
local minted = redis.call('HMGET', mints, digest .. ':mint', digest .. ':head', digest .. ':free')
local timed = redis.call('HMGET', clock, 'withdrawn', 'opened')
local known = redis.call('HMGET', own, digest .. ':by', digest .. ':outcome', digest .. ':runs', 'rev')
local _, minted_jti, minted_at = minting(minted[1])

-- (1) revoked, or taken back by the user
if taken_back(minted_at, timed[1]) or revoked({unpack(ARGV, 8)}, tonumber(timed[2] or '0')) then
  return {KEYS[1], 'revoked', '', ''}
end

-- (2) minted in another lineage of this store
local gen = lineage()
if gen ~= ARGV[2] then
  return {KEYS[1], 'lineage', '', ''}
end

-- (3) the store has lost what somebody saw: this call may have run already. A free call goes on
local before, lost = history(KEYS[3], ARGV[5])
if lost and minted[3] ~= '1' then
  return {KEYS[1], 'lost', '', ''}
end

-- (4) an upstream credential that whoever redeems has no broker for: the tool could not run, so nothing is spent
if ARGV[7] ~= '' and minted[2] and string.find(minted[2], '"upstream"', 1, true) then
  local asked, found = cjson.decode(minted[2]).upstream, false
  for _, broker in ipairs(cjson.decode(ARGV[7])) do
    found = found or asked and broker == asked.broker
  end
  if asked and not found then
    return {KEYS[1], 'upstream', asked.broker, ''}
  end
end

-- (5) what the run's other calls did was evicted, or deleted; or whether it was revoked
if not timed[2] or own ~= mints and not known[4] then
  return {KEYS[1], 'used', '', ''}
end

-- (6) the single-use key: only one burn can take it
local binding = redis.call('GETDEL', KEYS[1])
if not binding then
  return {KEYS[1], 'used', '', ''}
end

-- (7) minted for another call, audience or sender key
if binding ~= ARGV[3] then
  return {KEYS[1], 'binding', '', ''}
end

-- (8) the call's record names this token, and not as one that redeemed it
if minted_jti ~= ARGV[4] or known[1] == ARGV[4] then
  return {KEYS[1], 'used', '', ''}
end

redeem_call(own, digest, ARGV[4], ARGV[6], known, now_ms())
return {KEYS[1], 'ok', minted[2], minted[3] == '1' and '' or raise_history(KEYS[3], gen, before)}
