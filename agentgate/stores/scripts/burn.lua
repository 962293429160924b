-- KEYS jti calls history | ARGV digest gen binding jti seen attempt brokers revoked...
-- The revocations are keys too, in the same slot; passed as KEYS they would require the right to write them, which a tool server lacks.
local digest = ARGV[1]
local record = redis.call('HMGET', KEYS[2], digest .. ':status', digest .. ':mint', digest .. ':head', 'rev', digest .. ':by',
  digest .. ':outcome', digest .. ':free', digest .. ':runs', 'withdrawn', 'opened')
local _, minted_jti, minted_at = minting(record[2])

-- (1) revoked, or taken back by the user
local revocations = {}
for i = 8, #ARGV do
  revocations[i - 7] = ARGV[i]
end
if taken_back(minted_at, record[9]) or revoked(revocations, tonumber(record[10] or '0')) then
  return {KEYS[1], 'revoked', '', ''}
end

-- (2) minted in another lineage of this store
local gen = lineage()
if gen ~= ARGV[2] then
  return {KEYS[1], 'lineage', '', ''}
end

-- (3) the store has lost what somebody saw: this call may have run already. A free call goes on
local before, lost = history(KEYS[3], ARGV[5])
if lost and record[7] ~= '1' then
  return {KEYS[1], 'lost', '', ''}
end

-- (4) an upstream credential that whoever redeems has no broker for: the tool could not run, so nothing is spent
if ARGV[7] ~= '' and record[1] and string.find(record[3], '"upstream"', 1, true) then
  local asked, known = cjson.decode(record[3]).upstream, false
  for _, broker in ipairs(cjson.decode(ARGV[7])) do
    known = known or asked and broker == asked.broker
  end
  if asked and not known then
    return {KEYS[1], 'upstream', asked.broker, ''}
  end
end

-- (5) the single-use key: only one burn can take it
local binding = redis.call('GETDEL', KEYS[1])
if not binding then
  return {KEYS[1], 'used', '', ''}
end

-- (6) minted for another call, audience or sender key
if binding ~= ARGV[3] then
  return {KEYS[1], 'binding', '', ''}
end

-- (7) the call's record names this token, and not as one that redeemed it
if not record[1] or minted_jti ~= ARGV[4] or record[5] == ARGV[4] then
  return {KEYS[1], 'used', '', ''}
end

-- A call that runs again: its first facts stand, with their time, and once done it stays done.
local rev, runs, at, outcome = digits(tonumber(record[4] or '0') + 1), digits(tonumber(record[8] or '0') + 1), digits(now_ms()), ''
if record[5] then
  if redis.call('HEXISTS', KEYS[2], digest .. ':facts') == 1 then
    at = redis.call('HGET', KEYS[2], digest .. ':at')
  end
  outcome = record[6] == 'done' and 'done' or ''
end
redis.call('HSET', KEYS[2], digest .. ':status', 'redeemed', digest .. ':by', ARGV[4], digest .. ':attempt', ARGV[6], digest .. ':runs', runs, digest .. ':at', at,
  digest .. ':outcome', outcome, 'rev', rev, 'changed:' .. rev, digest)
return {KEYS[1], 'ok', record[3], record[7] == '1' and '' or raise_history(KEYS[3], gen, before)}
