-- KEYS burns run hold limit... | ARGV digest mint head at outcome run redeemed (amount every name)...
-- A redemption, or only a spent release, that the store has lost and an audit log has kept. Replayed again it changes nothing.
-- A limit with a name counts this run only (see mint.lua).
local call, digest, at, run, run_key = redis.call, ARGV[1], ARGV[4], ARGV[6], KEYS[2]
local record = call('HMGET', KEYS[1], digest .. ':status', digest .. ':outcome', 'rev', digest .. ':by')
local mints = beside(KEYS[1])
if declare then
  declare({mints})
end
local audience = string.match(KEYS[1], '}:burns:(%x+):')
local runs = call('EXISTS', run_key) == 1
local shares = audience and run_key or KEYS[1]

local state = call('HGET', KEYS[3], 'state')
if state and state ~= 'spent' and state ~= 'consumed' then
  call('HSET', KEYS[3], 'state', 'spent', 'call', digest)
  call('HINCRBY', KEYS[3], 'rev', 1)
end
local _, jti = minting(ARGV[2])
local redeemed = record[1] == 'redeemed'
local ended = redeemed and (record[4] == jti or record[2] ~= 'failed' and record[2] ~= 'not_run')
if ARGV[7] ~= '1' or ended then
  return {KEYS[1], 'known'}
end

-- A share is on record for as long as it counts. In a window a later mint of the same call counts later.
local now, place = now_ms(), 3
for i = 8, #ARGV, 3 do
  local amount, every, name = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local hash, total, share, bucket = run_key, 'total:' .. name, digest .. ':run:' .. name .. ':share', '0'
  local counts = name == '' or call('EXISTS', hash) == 1
  if name == '' then
    hash, total, place = KEYS[place + 1], 'total', place + 1
    share = digest .. ':all:' .. hash .. ':share'
    if every > 0 then
      bucket = digits(bucket_of(tonumber(at), every))
      counts = tonumber(bucket) >= bucket_of(now - every, every)
    end
  end
  local counted = string.match(call('HGET', shares, share) or '', '^%d+ (%d+)')
  if counts and (not counted or tonumber(counted) < tonumber(bucket)) then
    call('HINCRBY', hash, total, amount)
    if runs or not audience then
      call('HSET', shares, share, amount .. ' ' .. bucket .. (audience and ' ' .. audience or ''))
    end
    if every > 0 then
      call('HINCRBY', hash, bucket, amount)
      if call('PTTL', hash) < 0 then
        call('PEXPIRE', hash, digits(3 * (every + 600000)))
      end
    end
  end
end

local rev = digits(tonumber(record[3] or '0') + 1)
if call('HEXISTS', mints, digest .. ':head') == 0 then
  call('HSET', mints, digest .. ':head', ARGV[3], digest .. ':free', '')
end
-- The mint that was redeemed stands: a token that was minted since, by who knew nothing of it, is no longer the call's.
call('HSET', mints, digest .. ':mint', ARGV[2], 'opened', call('HGET', run_key, 'opened') or '0')
call('HSET', KEYS[1], digest .. ':status', 'redeemed', digest .. ':by', jti, digest .. ':at', at, digest .. ':outcome', ARGV[5], 'rev', rev,
  'changed:' .. rev, digest)
call('HINCRBY', KEYS[1], digest .. ':runs', 1)
for _, key in ipairs({KEYS[1], mints}) do
  if call('PTTL', key) < 0 then
    call('PEXPIRE', key, '86400000')
  end
end
local listed = call('HGET', run_key, 'audiences') or ''
if audience and runs and not string.find(listed, audience, 1, true) then
  call('HSET', run_key, 'audiences', listed .. ' ' .. audience)
end
return {KEYS[1], 'ok'}
