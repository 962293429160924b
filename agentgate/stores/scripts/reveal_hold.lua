-- KEYS hold: the sensitive values of a pending or released hold
local hold = read_hold(KEYS[1])
local open = hold[1] == 'pending' or hold[1] == 'released'
return {KEYS[1], open and redis.call('HGET', KEYS[1], 'sensitive') or ''}
