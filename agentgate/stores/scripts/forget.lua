-- KEYS memory history | ARGV seen place...: these places of a user's memory are empty from now on; without any, all. What was asked before
-- is not remembered, either, whenever it is minted.
local before, lost = history(KEYS[2], ARGV[1])
local gen = lineage()
local places, count = {unpack(ARGV, 2)}, 0
if #places == 0 then
  places = redis.call('HKEYS', KEYS[1])
end
redis.call('HSET', KEYS[1], 'forgotten', digits(now_ms())) -- first: a key that is emptied is gone, and on a shard perhaps not to be had again
for _, place in ipairs(places) do
  count = count + (place ~= 'forgotten' and redis.call('HDEL', KEYS[1], place) or 0)
end
redis.call('PEXPIRE', KEYS[1], digits(YEAR))
before = raise_history(KEYS[2], gen, before)
return {KEYS[1], lost and '' or before, digits(count)}
