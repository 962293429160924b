-- KEYS index | ARGV prefix hook lease_ms first most: of the `most` holds from place `first` on, the first of which a hook has something to
-- tell that nobody tells now, and what: it was held, an answer, or that it is over. For `lease_ms` it is the caller's to tell.
local first, last = tonumber(ARGV[4]), tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1
local ids, now = redis.call('ZRANGE', KEYS[1], first, last), now_ms()
if declare then
  local holds = {}
  for i, id in ipairs(ids) do
    holds[i] = ARGV[1] .. id
  end
  declare_holds(holds)
end
for _, id in ipairs(ids) do
  local key = ARGV[1] .. id
  local known = redis.call('HMGET', key, 'told:' .. ARGV[2], 'telling:' .. ARGV[2], 'events')
  local hold = known[1] ~= 'all' and now >= tonumber(known[2] or '0') and read_hold(key) or {}
  if hold[1] then
    local told, events = tonumber(known[1] or '0'), tonumber(known[3] or '0')
    local what = told == 0 and 'held' or told <= events and 'answered' or (hold[1] == 'expired' or hold[1] == 'cancelled') and hold[1]
    if what then
      redis.call('HSET', key, 'telling:' .. ARGV[2], digits(now + tonumber(ARGV[3])))
      local event = what == 'answered' and redis.call('HGET', key, 'event:' .. digits(told)) or ''
      return {KEYS[1], what, id, digits(told), hold[5] or '0', event, hold[1], hold[2], hold[3], hold[4]}
    end
    if hold[1] == 'refused' then
      redis.call('HSET', key, 'told:' .. ARGV[2], 'all')
    end
  end
end
return {KEYS[1], #ids > last - first and 'more' or 'none', '', '0', '0', '', '', '', '', ''}
