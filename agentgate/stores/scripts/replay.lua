-- KEYS calls run hold (limit times)... | ARGV digest mint head at outcome run redeemed (amount every name)...
-- A redemption, or only a spent release, that the store has lost and an audit log has kept. Replayed again it changes nothing.
-- A limit with a name counts this run only (see mint.lua).
local call, digest, at, run = redis.call, ARGV[1], ARGV[4], ARGV[6]
local record = call('HMGET', KEYS[1], digest .. ':status', digest .. ':mint', digest .. ':outcome', 'rev', digest .. ':by')

local state = call('HGET', KEYS[3], 'state')
if state and state ~= 'spent' and state ~= 'consumed' then
  call('HSET', KEYS[3], 'state', 'spent', 'call', digest)
  call('HINCRBY', KEYS[3], 'rev', 1)
end
local _, jti = minting(ARGV[2])
local redeemed = record[1] == 'redeemed'
local ended = redeemed and (record[5] == jti or record[3] ~= 'failed' and record[3] ~= 'not_run')
if ARGV[7] ~= '1' or ended then
  return {KEYS[1], 'known'}
end

-- The share of a mint that is on record is counted, unless it was given back, which happens only in the lineage of the mint.
local counted = redeemed or record[1] and minting(record[2]) ~= lineage()
local place = 3
for i = 8, #ARGV, 3 do
  local amount, every, name = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  if name ~= '' then
    if call('EXISTS', KEYS[2]) == 1 and not counted and call('HEXISTS', KEYS[2], digest .. ':' .. name) == 0 then
      call('HINCRBY', KEYS[2], 'total:' .. name, amount)
    end
  else
    local counter, times = KEYS[place + 1], KEYS[place + 2]
    place = place + 2
    if not counted and call('HEXISTS', counter, digest) == 0 then
      call('HINCRBY', counter, 'total', amount)
      if every > 0 then
        local oldest = call('HGET', counter, 'oldest') or at
        call('HSET', counter, digest, amount .. ':' .. run, 'oldest', digits(math.min(tonumber(oldest), tonumber(at))))
        call('ZADD', times, at, digest, '+inf', '+')
        for _, key in ipairs({counter, times}) do
          if call('PTTL', key) < 0 then
            call('PEXPIRE', key, digits(3 * (every + 600000)))
          end
        end
      end
    end
  end
end

local rev, kept = digits(tonumber(record[4] or '0') + 1), call('PTTL', KEYS[1])
if not record[1] then
  call('HSET', KEYS[1], digest .. ':head', ARGV[3], digest .. ':mint', ARGV[2], digest .. ':free', '')
end
call('HSET', KEYS[1], digest .. ':status', 'redeemed', digest .. ':by', jti, digest .. ':at', at, digest .. ':outcome', ARGV[5],
  'rev', rev, 'changed:' .. rev, digest)
call('HINCRBY', KEYS[1], digest .. ':runs', 1)
if kept < 0 then
  call('PEXPIRE', KEYS[1], '86400000')
end
return {KEYS[1], 'ok'}
