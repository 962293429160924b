-- KEYS run opened clock revoked... | ARGV header turn ttl_ms most keeps acts: at most so many runs in any hour; `opened` counts them like a limit's window
-- Returns also the run as it is then: the new one, or the one that has its id.
-- `acts` says who mints acts in this run (see ops.open_run): anybody, where the store keeps what it acknowledged. `form` says whose its keys
-- are (see `beside`); with `kept` a gate that knows no such form finds its calls missing, and mints nothing.
local call, now, hour = redis.call, now_ms(), 3600000
local gen, alone = lineage()
local function answer(kind)
  return {KEYS[1], kind, snapshot(KEYS[1], gen, alone, '')}
end
if call('EXISTS', KEYS[1]) == 1 then
  return answer('exists')
end
if #KEYS > 3 and revoked({unpack(KEYS, 4)}, now) then
  return answer('revoked')
end
local from = bucket_of(now - hour, hour)
if tonumber(call('HGET', KEYS[2], 'first') or '0') < from then
  slide(KEYS[2], from)
end
local kept = call('HMGET', KEYS[2], 'total', 'first')
local total, before = tonumber(kept[1] or '0'), string.match(KEYS[2], '^([^\n]*)\n') -- earlier versions counted all of a name, whoever proved them
if before and call('EXISTS', before) == 1 then
  slide(before, from)
  total = total + tonumber(call('HGET', before, 'total') or '0')
end
local keeps = ARGV[5] == 'yes' or ARGV[5] == 'alone' and alone
if total >= tonumber(ARGV[4]) then
  return answer('too_many')
end
call('HINCRBY', KEYS[2], 'total', 1)
call('HINCRBY', KEYS[2], digits(math.max(bucket_of(now, hour), tonumber(kept[2]))), 1)
call('PEXPIRE', KEYS[2], digits(2 * hour))
call('HSET', KEYS[1], 'header', ARGV[1], 'rev', '1', 'turns', '1', 'turn:1', ARGV[2], 'opened', digits(now),
  'ends', digits(now + tonumber(ARGV[3])), 'form', '2', 'kept', '0', 'acts', keeps and 'kept' or ARGV[6] == 'any' and gen or ARGV[6])
call('PEXPIRE', KEYS[1], ARGV[3])
call('HSET', KEYS[3], 'opened', digits(now))
call('HSETNX', string.match(KEYS[1], '^ag:{[^}]*}:') .. 'history', 'owned', digits(now))
call('PEXPIRE', KEYS[3], digits(tonumber(ARGV[3]) + 60000))
return answer('ok')
