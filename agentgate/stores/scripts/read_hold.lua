-- KEYS hold
local hold = redis.call('HMGET', KEYS[1], 'state', 'body', 'rev', 'call')
if not hold[1] then
  return {KEYS[1], 'missing', '', '', ''}
end
return {KEYS[1], hold[1], hold[2], hold[3], hold[4]}
