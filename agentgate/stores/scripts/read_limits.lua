-- KEYS run (limit)... | ARGV name...: what is taken of each limit, for a person to see; one with a name counts this run only. Nothing is
-- dropped that left a window meanwhile, so of a window it may be more than still counts
local out, place = {}, 1
for i, name in ipairs(ARGV) do
  local key, field = KEYS[1], 'total:' .. name
  if name == '' then
    place = place + 1
    key, field = KEYS[place], 'total'
  end
  local before = string.match(key, '^([^\n]*)\n') -- see mint.lua
  if declare and before then
    declare({before})
  end
  out[i] = digits(tonumber(redis.call('HGET', key, field) or '0') + tonumber(before and redis.call('HGET', before, field) or '0'))
end
return {KEYS[1], out}
