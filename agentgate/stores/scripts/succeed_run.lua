-- KEYS run conversation revoked... | ARGV header revision life_ms takes_back turn...: the run of a conversation begins anew, with these turns, where it
-- is open and as it was read. What is counted in it, its calls, holds and what was taken back stand; so does when it was opened, for revocations.
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
local known = redis.call('HMGET', KEYS[1], 'rev', 'opened', 'turns')
if known[1] ~= string.match(ARGV[2], '^(%d+)%.') then
  return {KEYS[1], 'stale'}
elseif revoked({unpack(KEYS, 3)}, tonumber(known[2])) then
  return {KEYS[1], 'revoked'}
end
for n = 1, tonumber(known[3]) do
  redis.call('HDEL', KEYS[1], 'turn:' .. digits(n))
end
for n = 5, #ARGV do
  redis.call('HSET', KEYS[1], 'turn:' .. digits(n - 4), ARGV[n])
end
redis.call('HSET', KEYS[1], 'header', ARGV[1], 'turns', digits(#ARGV - 4))
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('SET', KEYS[2], digits(now_ms()), 'PX', YEAR)
keep_run(KEYS[1], now_ms() + tonumber(ARGV[3]))
if ARGV[4] == '1' then
  take_back(KEYS[1])
end
return {KEYS[1], 'ok'}
