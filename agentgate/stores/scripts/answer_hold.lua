-- KEYS hold own | ARGV expected_rev body state nonce event id note: a pending hold takes any answer, a released one only a no; a signed answer its
-- nonce. `event` is what is told of it. `own`: the list of what asks the person who answers: there they find it afterwards.
local hold = read_hold(KEYS[1])
if not hold[1] then
  return {KEYS[1], 'missing'}
end
if hold[1] ~= 'pending' and not (hold[1] == 'released' and ARGV[3] == 'refused') then
  return {KEYS[1], 'final'}
end
if hold[3] ~= ARGV[1] then
  return {KEYS[1], 'stale'}
end
local lists, cool, time = ARGV[3] ~= 'pending' and lists_of(KEYS[1]) or {}, nil, nil
if ARGV[3] == 'refused' then
  cool, time = unpack(redis.call('HMGET', KEYS[1], 'cool', 'time'))
end
if declare then
  declare(lists)
  declare({cool or nil})
end
if ARGV[4] ~= '' then
  local ends = redis.call('HGET', KEYS[1], 'nonce:' .. ARGV[4])
  if not ends or tonumber(ends) <= now_ms() then
    return {KEYS[1], 'nonce'}
  end
  redis.call('HDEL', KEYS[1], 'nonce:' .. ARGV[4])
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'body', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'rev', 1)
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'event:' .. digits(redis.call('HINCRBY', KEYS[1], 'events', 1)), ARGV[5])
end
if ARGV[3] ~= 'pending' then
  end_hold(lists, ARGV[6])
end
if KEYS[2] and not redis.call('ZSCORE', KEYS[2], ARGV[6]) then
  list_hold(KEYS[2], ARGV[6], now_ms(), digits(now_ms()), 1209600000)
end
if cool then -- the same act under another id is not asked again for as long as a person has to answer
  redis.call('SET', cool, ARGV[7], 'PX', time)
end
return {KEYS[1], 'ok'}
