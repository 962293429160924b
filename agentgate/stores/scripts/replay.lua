-- KEYS calls run hold limit... | ARGV digest mint head at outcome run redeemed (amount every name)...
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

-- A share is on the call's record for as long as it counts. In a window a later mint of the same call counts later.
local now, place = now_ms(), 3
for i = 8, #ARGV, 3 do
  local amount, every, name = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local hash, total, share, bucket = KEYS[2], 'total:' .. name, digest .. ':run:' .. name .. ':share', '0'
  local counts = name == '' or call('EXISTS', hash) == 1
  if name == '' then
    hash, total, place = KEYS[place + 1], 'total', place + 1
    share = digest .. ':all:' .. hash .. ':share'
    if every > 0 then
      bucket = digits(bucket_of(tonumber(at), every))
      counts = tonumber(bucket) >= bucket_of(now - every, every)
    end
  end
  local counted = string.match(call('HGET', KEYS[1], share) or '', '%d+$')
  if counts and (not counted or tonumber(counted) < tonumber(bucket)) then
    call('HINCRBY', hash, total, amount)
    call('HSET', KEYS[1], share, amount .. ' ' .. bucket)
    if every > 0 then
      call('HINCRBY', hash, bucket, amount)
      if call('PTTL', hash) < 0 then
        call('PEXPIRE', hash, digits(3 * (every + 600000)))
      end
    end
  end
end

local rev, kept = digits(tonumber(record[4] or '0') + 1), call('PTTL', KEYS[1])
if not record[1] then
  call('HSET', KEYS[1], digest .. ':head', ARGV[3], digest .. ':free', '')
end
-- The mint that was redeemed stands: a token that was minted since, by who knew nothing of it, is no longer the call's.
call('HSET', KEYS[1], digest .. ':mint', ARGV[2], digest .. ':status', 'redeemed', digest .. ':by', jti, digest .. ':at', at, digest .. ':outcome', ARGV[5],
  'rev', rev, 'changed:' .. rev, digest)
call('HINCRBY', KEYS[1], digest .. ':runs', 1)
if kept < 0 then
  call('PEXPIRE', KEYS[1], '86400000')
end
return {KEYS[1], 'ok'}
