-- KEYS run opened clock history [conversation] revoked... | ARGV header turn ttl_ms most keeps acts keep_ms: at most so many runs in any hour; `opened`
-- counts them like a limit's window. With `keep_ms` it is the run of a host's conversation, and is there for so long after its end; that there
-- was one, `conversation` says for twelve times as long (a year): none begins anew of which the store has forgotten what was said and done in it.
-- Returns also the run as it is then: the new one, or the one that has its id.
-- `acts` says who mints acts in this run (see ops.open_run): anybody, where the store keeps what it acknowledged. `form` says whose its keys
-- are (see `beside`); with `kept` a gate that knows no such form finds its calls missing, and mints nothing. `rev` begins with the time: who
-- knew a run that had this id before knows no revision of this one.
local call, now, hour, keep = redis.call, now_ms(), 3600000, tonumber(ARGV[7])
local gen, alone = lineage()
local function answer(kind)
  return {KEYS[1], kind, snapshot(KEYS[1], gen, alone, '')}
end
if call('EXISTS', KEYS[1]) == 1 then
  return answer('exists')
end
if keep > 0 and call('EXISTS', KEYS[5]) == 1 then
  return answer('gone')
end
local first = keep > 0 and 6 or 5
if #KEYS >= first and revoked({unpack(KEYS, first)}, now) then
  return answer('revoked')
end
local from = bucket_of(now - hour, hour)
if tonumber(call('HGET', KEYS[2], 'first') or '0') < from then
  slide(KEYS[2], from)
end
local kept = call('HMGET', KEYS[2], 'total', 'first')
local total, before = tonumber(kept[1] or '0'), string.match(KEYS[2], '^([^\n]*)\n') -- earlier versions counted all of a name, whoever proved them
if declare and before then
  declare({before})
end
if before and call('EXISTS', before) == 1 then
  slide(before, from)
  total = total + tonumber(call('HGET', before, 'total') or '0')
end
local keeps = ARGV[5] == 'yes' or ARGV[5] == 'alone' and alone
if total >= tonumber(ARGV[4]) then
  return answer('too_many')
end
local life = tonumber(ARGV[3]) + keep
call('HINCRBY', KEYS[2], 'total', 1)
call('HINCRBY', KEYS[2], digits(math.max(bucket_of(now, hour), tonumber(kept[2]))), 1)
call('PEXPIRE', KEYS[2], digits(2 * hour))
call('HSET', KEYS[1], 'header', ARGV[1], 'rev', digits(now), 'turns', '1', 'turn:1', ARGV[2], 'opened', digits(now),
  'ends', digits(now + life), 'form', '2', 'kept', '0', 'acts', keeps and 'kept' or ARGV[6] == 'any' and gen or ARGV[6])
call('PEXPIRE', KEYS[1], digits(life))
if keep > 0 then
  call('SET', KEYS[5], digits(now), 'PX', digits(math.floor(12.2 * keep)))
end
call('HSET', KEYS[3], 'opened', digits(now))
call('HSETNX', KEYS[4], 'owned', digits(now))
call('PEXPIRE', KEYS[3], digits(life + 60000))
return answer('ok')
