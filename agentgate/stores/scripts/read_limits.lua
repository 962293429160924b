-- KEYS run (limit)... | ARGV name...: what is taken of each limit, for a person to see; one with a name counts this run only. Nothing is
-- dropped that left a window meanwhile, so of a window it may be more than still counts
local out, place = {}, 1
for i, name in ipairs(ARGV) do
  local key, field = KEYS[1], 'total:' .. name
  if name == '' then
    place = place + 1
    key, field = KEYS[place], 'total'
  end
  out[i] = redis.call('HGET', key, field) or '0'
end
return {KEYS[1], out}
