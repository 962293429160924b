-- KEYS lastkey history | ARGV key old signed_ms seen: the account's key from now on. `old` (empty: a person said so) must be the one on record,
-- and the statement newer than that record, which is never older than the statement that made it: each counts once, also of a fast clock.
local record, before = redis.call('GET', KEYS[1]), string.match(KEYS[1], '^([^\n]*)\n') -- see mint.lua
if declare and before then
  declare({before})
end
local gen = lineage()
local since, known = string.match(record or before and redis.call('GET', before) or '', '^(%d+) (.+)$')
local before, lost = history(KEYS[2], ARGV[4])
if ARGV[2] ~= '' then
  if lost then
    return {KEYS[1], 'lost', ''}
  elseif known ~= ARGV[2] then
    return {KEYS[1], 'other', ''}
  elseif tonumber(ARGV[3]) <= tonumber(since) then
    return {KEYS[1], 'old', ''}
  end
end
redis.call('SET', KEYS[1], digits(math.max(now_ms(), tonumber(ARGV[3]))) .. ' ' .. ARGV[1])
before = raise_history(KEYS[2], gen, before)
return {KEYS[1], 'ok', lost and '' or before}
