-- KEYS run calls | ARGV revision: one snapshot of both: of the run what a decision needs, without the counts of its limits; of the calls
-- those that changed after `revision`, if it is of this lineage, else all.
local names = {'header', 'rev', 'closed', 'turns', 'acts', 'turn:1'}
local values, flat = redis.call('HMGET', KEYS[1], unpack(names)), {}
local turns = math.min(tonumber(values[4]) or 1, 1000)
if turns > 1 then
  for n = 2, turns do
    names[n + 5] = 'turn:' .. digits(n)
  end
  values = redis.call('HMGET', KEYS[1], unpack(names))
end
for i, name in ipairs(names) do
  if values[i] then
    flat[#flat + 1], flat[#flat + 2] = name, values[i]
  end
end

-- The calls that changed after revision `known`, or nil if that is not on record.
local parts = {':head', ':status', ':at', ':mint', ':facts', ':outcome'}
local function since(known)
  local last, seen, out = tonumber(redis.call('HGET', KEYS[2], 'rev') or '0'), {}, {}
  if known > last or last - known > 500 then
    return nil
  end
  out[1], out[2] = 'rev', digits(last)
  for rev = known + 1, last do
    local digest = redis.call('HGET', KEYS[2], 'changed:' .. digits(rev))
    if not digest then
      return nil
    end
    if not seen[digest] then
      seen[digest] = true
      for i, value in ipairs(redis.call('HMGET', KEYS[2], digest .. ':head', digest .. ':status', digest .. ':at', digest .. ':mint',
        digest .. ':facts', digest .. ':outcome')) do
        if value then
          out[#out + 1], out[#out + 2] = digest .. parts[i], value
        end
      end
    end
  end
  return out
end

-- Who mints acts in it (see ops.RunRecord): of a run that lives on a store that keeps everything, whether it still stands alone
local gen, alone = lineage()
local acts = values[5] or 'kept'
if acts == 'kept' then
  acts = alone and 'alone' or 'replicated'
elseif #acts == 40 then
  acts = acts == gen and 'any' or 'nobody'
end
local known, read_in = string.match(ARGV[1], '^%d+%.(%d+)%.(%x+)$')
local changed = read_in == gen and since(tonumber(known)) or nil
return {KEYS[1], gen, flat, changed or redis.call('HGETALL', KEYS[2]), changed and 'since' or 'all', acts}
