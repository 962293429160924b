-- KEYS history | ARGV count (epoch end)...: from now on, what somebody saw of these epochs up to their ends is no loss. A new epoch begins.
-- Returns what is still lost: somebody saw more than that. A tool server may have written anything into its own.
local call = redis.call
local gen = lineage()
histories_beside(KEYS[1])
local kept = call('HMGET', KEYS[1], 'epoch', 'count', 'lost')
if kept[1] then
  call('HSET', KEYS[1], 'until:' .. kept[1], digits(count_of(kept[2])))
end
for i = 2, #ARGV, 2 do
  local name = 'until:' .. ARGV[i]
  call('HSET', KEYS[1], name, digits(math.max(count_of(call('HGET', KEYS[1], name)), tonumber(ARGV[i + 1]))))
end
call('HSET', KEYS[1], 'epoch', new_epoch(gen), 'count', digits(math.max(count_of(kept[2]), tonumber(ARGV[1]))))
call('HDEL', KEYS[1], 'lost')
call('HSET', KEYS[1], 'keyless', digits(now_ms())) -- no account without a record is new from now on (mint.lua), and nothing is remembered
-- what no process can have seen is no loss (`history_form` in _op.py)
local claim = kept[3] or ''
local lineage_seen, time, count = string.match(claim, '^([0-9a-f]+)%.(%d+) (%d+)$')
if not count or #lineage_seen ~= 40 or #time > 20 or #count > 15 then
  claim = ''
end
local _, lost = history(KEYS[1], claim)
return {KEYS[1], lost and claim or ''}
