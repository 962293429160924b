-- KEYS revocation history told index forgets | ARGV value name told life_ms seen
-- A value is a time (ms: what was opened or minted up to then), '*' (everything) or 'signed' (everything, said by reviewers: never lifted).
-- A revocation only grows, and is written again in any case: only then does a WAIT after this script wait for it.
local call, name, life = redis.call, ARGV[2], tonumber(ARGV[4])
local function rank(value)
  return not value and -1 or value == '*' and 2 ^ 60 or tonumber(value) or 2 ^ 61
end

local before, lost = history(KEYS[2], ARGV[5])
local gen, old, now = lineage(), call('GET', KEYS[1]), now_ms()
if string.match(name, '^%a+') ~= 'token' then -- also once it is lifted, nothing from before it is remembered
  call('SET', KEYS[5], digits(now), 'PX', digits(YEAR))
end
if rank(old) > rank(ARGV[1]) then
  call('SET', KEYS[1], old, 'KEEPTTL')
  return {KEYS[1], 'known', lost and '' or before}
end
local said = 'known'
if rank(old) < rank(ARGV[1]) then
  said = 'ok'
  before = raise_history(KEYS[2], gen, before)
elseif life > 0 then
  local left = call('PTTL', KEYS[1])
  life = left < 0 and 0 or math.max(left, life)
end
call('SET', KEYS[1], ARGV[1])
call('SET', KEYS[3], ARGV[3])
call('ZREMRANGEBYSCORE', KEYS[4], '-inf', digits(now))
call('ZADD', KEYS[4], life == 0 and '+inf' or digits(now + life), name)
if life > 0 then
  call('PEXPIRE', KEYS[1], digits(life))
  call('PEXPIRE', KEYS[3], digits(life))
end
return {KEYS[1], said, lost and '' or before}
