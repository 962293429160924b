-- KEYS history | ARGV count (epoch end)...: from now on, what somebody saw of these epochs up to their ends is no loss. A new epoch begins.
-- Returns what is still lost: somebody saw more than that.
local call = redis.call
local gen = lineage()
histories_beside(KEYS[1])
local kept = call('HMGET', KEYS[1], 'epoch', 'count', 'lost')
if kept[1] then
  call('HSET', KEYS[1], 'until:' .. kept[1], kept[2])
end
for i = 2, #ARGV, 2 do
  local name = 'until:' .. ARGV[i]
  if tonumber(call('HGET', KEYS[1], name) or '-1') < tonumber(ARGV[i + 1]) then
    call('HSET', KEYS[1], name, ARGV[i + 1])
  end
end
call('HSET', KEYS[1], 'epoch', new_epoch(gen), 'count', digits(math.max(tonumber(kept[2] or '0'), tonumber(ARGV[1]))))
call('HDEL', KEYS[1], 'lost')
call('HSET', KEYS[1], 'keyless', digits(now_ms())) -- no account without a record is new from now on (mint.lua), and nothing is remembered
local _, lost = history(KEYS[1], kept[3] or '')
return {KEYS[1], lost and kept[3] or ''}
