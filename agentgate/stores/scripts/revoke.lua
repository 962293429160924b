-- KEYS revocation | ARGV before_ms (0: everything): a revocation only ever grows and is never undone
local old = redis.call('GET', KEYS[1])
if ARGV[1] == '0' then
  redis.call('SET', KEYS[1], '*')
elseif old ~= '*' and tonumber(ARGV[1]) > tonumber(old or '0') then
  redis.call('SET', KEYS[1], ARGV[1])
end
return {KEYS[1], 'ok'}
