-- KEYS burns hold | ARGV digest jti outcome after_ms: a person says how a call ended of which nobody knows. `running`: it was redeemed less
-- than `after_ms` ago. One that did not happen may run again; the release that it spent is gone, so that a person is asked anew.
local digest, outcome = ARGV[1], ARGV[3]
local said = redis.call('HMGET', KEYS[1], digest .. ':status', digest .. ':outcome', digest .. ':by', digest .. ':at', 'rev')
if said[1] ~= 'redeemed' or said[3] ~= ARGV[2] or (said[2] and said[2] ~= '' and said[2] ~= 'unknown') then
  return {KEYS[1], 'known'}
end
if now_ms() - count_of(said[4]) < tonumber(ARGV[4]) then
  return {KEYS[1], 'running'}
end
redis.call('HSET', KEYS[1], digest .. ':outcome', outcome)
if outcome ~= 'done' then -- no earlier call any more: readers must see it
  local rev = digits(count_of(said[5]) + 1)
  redis.call('HSET', KEYS[1], 'rev', rev, 'changed:' .. rev, digest)
  redis.call('DEL', KEYS[2])
end
return {KEYS[1], 'ok'}
