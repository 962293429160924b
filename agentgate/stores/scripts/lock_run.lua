-- KEYS run | ARGV holder ttl_ms: one holder at a time; the same one takes it once more, and gives it back as often (ttl 0). It ends by itself.
-- Each new holder has a fence of its own, which its mints name: whoever held the lock before mints nothing with an older one.
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut, '0'}
end
local now, known = now_ms(), redis.call('HMGET', KEYS[1], 'holder', 'locked', 'fence', 'depth')
local left, ttl = tonumber(known[2] or '0') - now, tonumber(ARGV[2])
local own = known[1] == ARGV[1] and left > 0
local depth = own and tonumber(known[4]) or 0
if ttl == 0 then
  if own then
    redis.call('HSET', KEYS[1], 'depth', digits(depth - 1), 'locked', depth > 1 and known[2] or '0')
  end
  return {KEYS[1], 'ok', '0'}
elseif left > 0 and not own then
  return {KEYS[1], 'held', digits(left)}
end
local fence = digits(tonumber(known[3] or '0') + (own and 0 or 1))
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'locked', digits(now + ttl), 'fence', fence, 'depth', digits(depth + 1))
return {KEYS[1], 'ok', fence}
