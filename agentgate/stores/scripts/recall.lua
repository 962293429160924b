-- KEYS memory history | ARGV seen place...: what counts still in these places of a user's memory; without any, all of it
local before, lost = history(KEYS[2], ARGV[1])
local start, out = string.match(KEYS[1], '^ag:{[^}]*}:'), {}
local places = {unpack(ARGV, 2)}
if #places == 0 then
  places = redis.call('HKEYS', KEYS[1])
end
for _, place in ipairs(lost and {} or places) do
  local found = place ~= 'forgotten' and standing_memory(start, redis.call('HGET', KEYS[1], place))
  if found then
    out[#out + 1] = {place, unpack(found)}
  end
end
return {KEYS[1], lost and '' or before, out}
