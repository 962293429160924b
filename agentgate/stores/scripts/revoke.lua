-- KEYS revocation history | ARGV before_ms (0: everything): a revocation only ever grows and is never undone
local old = redis.call('GET', KEYS[1])
local new = ARGV[1] == '0' and '*' or ARGV[1]
if old ~= '*' and (new == '*' or tonumber(new) > tonumber(old or '0')) then
  redis.call('SET', KEYS[1], new)
  raise_history(KEYS[2], lineage(), (history(KEYS[2], '')))
end
return {KEYS[1], 'ok'}
