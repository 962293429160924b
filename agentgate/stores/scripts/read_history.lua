-- KEYS history: a tenant's, and after it that of each audience; what a tool server wrote is read field by field
local out = {redis.call('HGETALL', KEYS[1])}
for _, key in ipairs(histories_beside(KEYS[1])) do
  local names, flat = redis.call('HKEYS', key), {'audience', string.match(key, '%x+$')}
  for i = 1, math.min(#names, 1000) do
    local value = redis.call('HSTRLEN', key, names[i]) <= 256 and redis.call('HGET', key, names[i])
    if value and #names[i] <= 256 and names[i] ~= 'audience' then
      flat[#flat + 1], flat[#flat + 2] = names[i], value
    end
  end
  out[#out + 1] = flat
end
return {KEYS[1], out}
