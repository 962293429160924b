-- KEYS hold | ARGV nonce life_ms: one more nonce with which a pending or released hold may be answered; of 64 the oldest makes room
local hold = read_hold(KEYS[1])
if not hold[1] then
  return {KEYS[1], 'missing'}
end
if hold[1] ~= 'pending' and hold[1] ~= 'released' then
  return {KEYS[1], 'final'}
end
local now, live, oldest = now_ms(), 0, nil
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if string.sub(fields[i], 1, 6) == 'nonce:' then
    local ends = tonumber(fields[i + 1])
    if ends <= now then
      redis.call('HDEL', KEYS[1], fields[i])
    else
      live = live + 1
      if not oldest or ends < oldest[2] then
        oldest = {fields[i], ends}
      end
    end
  end
end
if live >= 64 then
  redis.call('HDEL', KEYS[1], oldest[1])
end
redis.call('HSET', KEYS[1], 'nonce:' .. ARGV[1], digits(now + tonumber(ARGV[2])))
return {KEYS[1], 'ok'}
