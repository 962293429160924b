-- KEYS run calls: one snapshot of both; of the run what a decision needs, not what its limits have counted
local names = {'header', 'rev', 'closed', 'turns', 'turn:1'}
local values, flat = redis.call('HMGET', KEYS[1], unpack(names)), {}
local turns = math.min(tonumber(values[4]) or 1, 1000)
if turns > 1 then
  for n = 2, turns do
    names[n + 4] = 'turn:' .. digits(n)
  end
  values = redis.call('HMGET', KEYS[1], unpack(names))
end
for i, name in ipairs(names) do
  if values[i] then
    flat[#flat + 1], flat[#flat + 2] = name, values[i]
  end
end
return {KEYS[1], lineage(), flat, redis.call('HGETALL', KEYS[2])}
