-- KEYS hold index burns cool open since hash clock reserved mints run own list... | ARGV body ttl_ms answer_ms id sensitive prefix most most_own
-- despite call: an existing hold is left as it is, unless it was cancelled. `hash` is its run; `clock`, `reserved` and `mints` are of that, and
-- declared so that a shard needs no second trip. While `cool` is there, a person refused this act of the run a while ago, and nobody is asked
-- again, unless `despite` is what it says.
-- `open` names the holds of the run that were pending when one was last opened: at most `most`. The lists in which it is found: of its run,
-- of who asked for it (at most `most_own` wait), and of each group or person that it asks. There its score is until when it waits (ms), and
-- when it ended once it is answered. `since`: when the first hold in lists was opened.
local hold = read_hold(KEYS[1])
if hold[1] and hold[1] ~= 'cancelled' then
  return {KEYS[1], hold[1], hold[2], hold[3], hold[4]}
end
local cool = redis.call('GET', KEYS[4])
if cool and cool ~= ARGV[9] then
  return {KEYS[1], 'cooling', cool, '', ''}
end
local open, run, ids, holds = 0, KEYS[7], redis.call('SMEMBERS', KEYS[5]), {}
for i, id in ipairs(ids) do
  holds[i] = ARGV[6] .. id
end
if declare then
  declare_holds(holds)
end
local calls = keys_of_calls(run)
for i, id in ipairs(ids) do
  if read_hold(holds[i])[1] == 'pending' then
    open = open + 1
  else
    redis.call('SREM', KEYS[5], id)
  end
end
if open >= tonumber(ARGV[7]) then
  return {KEYS[1], 'too_many', '', '', ''}
end
local now = now_ms()
for i = 12, #KEYS do
  local most = i == 12 and tonumber(ARGV[8]) or 5000
  if redis.call('ZCOUNT', KEYS[i], '(' .. digits(now), '+inf') >= most then
    return {KEYS[1], 'too_many', '', '', ''}
  end
end
redis.call('SADD', KEYS[5], ARGV[4])
if redis.call('PTTL', KEYS[5]) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[5], ARGV[2])
end
local rev = digits(tonumber(hold[3] or '0') + 1)
local _, clock = beside(KEYS[3])
local at = digits(later(now, redis.call('HGET', run, 'clock')))
if redis.call('EXISTS', run) == 1 then -- it is there for as long as the hold, under its act
  redis.call('HSET', run, 'clock', at, 'held:' .. string.match(KEYS[4], '[^:]+$'), ARGV[4] .. ' ' .. ARGV[10])
  keep_run(run, calls, now + tonumber(ARGV[2]))
end
if redis.call('PTTL', clock) < tonumber(ARGV[2]) then
  redis.call('PEXPIRE', clock, ARGV[2])
end
redis.call('DEL', KEYS[1]) -- with the nonces of a hold that was taken back: a yes to that one is none to this
redis.call('HSET', KEYS[1], 'state', 'pending', 'body', ARGV[1], 'rev', rev, 'call', '', 'at', at, 'calls', KEYS[3],
  'deadline', digits(now + tonumber(ARGV[3])), 'sensitive', ARGV[5], 'cool', KEYS[4], 'time', ARGV[3],
  'lists', table.concat(KEYS, ' ', 11))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', digits(now))
redis.call('ZADD', KEYS[2], digits(now + tonumber(ARGV[2])), ARGV[4])
redis.call('SET', KEYS[6], digits(now), 'NX')
for i = 11, #KEYS do
  list_hold(KEYS[i], ARGV[4], now + tonumber(ARGV[3]), digits(now), tonumber(ARGV[2]))
end
return {KEYS[1], 'pending', ARGV[1], rev, ''}
