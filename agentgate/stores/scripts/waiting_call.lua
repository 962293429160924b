-- KEYS run | ARGV act prefix: the id of the call under which this act waits in the run, or may run now; empty: it does not
local hold, call = string.match(redis.call('HGET', KEYS[1], 'held:' .. ARGV[1]) or '', '^(%S+) (.*)$')
if declare and hold then
  declare({ARGV[2] .. hold})
end
local state = hold and read_hold(ARGV[2] .. hold)[1]
return {KEYS[1], (state == 'pending' or state == 'released') and call or ''}
