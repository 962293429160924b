-- KEYS jti run calls history revoked... [hold] [lastkey] (limit times)...
-- ARGV digest head binding ttl_ms revision jti run read prefix #revoked #limits hold_rev thumbprint seen unspent (amount maximum every_ms name)...
-- A limit with a name counts this run only and is kept in the run's hash; one without has two keys of its own.
-- Everything is checked first, then everything is written. (Before that, limits only drop what no longer counts.)
local call, digest, ttl, prefix = redis.call, ARGV[1], tonumber(ARGV[4]), ARGV[9]
local now, gen = now_ms(), lineage()

local before, lost = history(KEYS[4], ARGV[14])
local free = ARGV[8] == '1' and ARGV[11] == '0' and ARGV[12] == '' -- a read that takes nothing: forgetting it does no harm

local function refuse(kind, detail)
  return {KEYS[1], kind, gen, detail or '', lost and '' or before}
end

-- (1) the run, with its own limits
local count, asked = tonumber(ARGV[11]), {'rev', 'closed', 'ends', 'kept', 'opened'}
for argument = 19, 15 + 4 * count, 4 do
  local name = ARGV[argument]
  if name ~= '' then
    local last = #asked
    asked[last + 1], asked[last + 2] = 'total:' .. name, digest .. ':' .. name
  end
end
local run = call('HMGET', KEYS[2], unpack(asked))
if not run[1] then
  return refuse('missing')
end
if run[2] then
  return refuse('closed')
end

-- (2) revocations; one by time stops the runs that were opened up to then
local position = 4 + tonumber(ARGV[10])
if revoked({unpack(KEYS, 5, position)}, tonumber(run[5] or '0')) then
  return refuse('revoked')
end

-- (3) the same call again. After its redemption: a read, whatever came of it, three times more; anything else only where nothing happened.
-- After a mint in another lineage: a read, or a call whose token this gate alone held and did not spend
local record = call('HMGET', KEYS[3], 'rev', digest .. ':status', digest .. ':mint', digest .. ':outcome', digest .. ':runs')
local old_gen, old_jti = minting(record[3])
if record[2] == 'redeemed' then
  local outcome, again = record[4], nil
  if ARGV[8] == '1' then
    again = tonumber(record[5]) <= 3
  else
    again = outcome == 'failed' or outcome == 'not_run'
  end
  if not again then
    return refuse(outcome == 'done' and 'already_redeemed' or outcome == 'failed' and 'failed' or 'outcome_unknown')
  end
elseif record[2] and old_gen ~= gen and ARGV[8] ~= '1' and old_jti ~= ARGV[15] then
  return refuse('outcome_unknown')
end
if lost and not free then
  return refuse('outcome_unknown', 'lost')
end

-- (4) decided on exactly this state of the run, in this lineage of the store
if run[1] .. '.' .. (record[1] or '0') .. '.' .. gen ~= ARGV[5] then
  return refuse('stale')
end

-- (5) the release: of this revision, or spent by this very call
local hold, spend = nil, false
if ARGV[12] ~= '' then
  position = position + 1
  hold = KEYS[position]
  local state = read_hold(hold)
  if not state[1] then
    return refuse('hold', 'missing')
  elseif state[1] == 'released' then
    if state[3] ~= ARGV[12] then
      return refuse('hold', 'stale')
    end
    spend = true
  elseif state[1] ~= 'spent' or state[4] ~= digest then
    return refuse('hold', state[1])
  end
end

-- (6) the same key as for the account's last token
local lastkey = nil
if ARGV[13] ~= '' then
  position = position + 1
  lastkey = KEYS[position]
  local last = call('GET', lastkey)
  if last and last ~= ARGV[13] then
    return refuse('key_changed')
  end
end

-- (7) limits. Each keeps a total, and the share of each call until it is known whether its token was burned. A share is given back only
-- if the token is provably unburned: it has expired, the call's record says minted, in this lineage, and its single-use key is gone.
-- A share that was burned, or cannot be proven unburned, counts for ever. Returns true, false, or nil: not known yet.
local function burned(owner, member)
  local entry = call('HMGET', prefix .. 'calls:' .. owner, member .. ':status', member .. ':mint')
  local minted_in, jti = minting(entry[2])
  if entry[1] ~= 'minted' or minted_in ~= gen then
    return true
  end
  if call('EXISTS', prefix .. 'jti:' .. jti) == 0 then
    return false
  end
end

-- The shares of other calls in a counter's `total`, of which `own` ("amount ...") is this call's.
local function others(total, own)
  total = tonumber(total or '0')
  return own and total - tonumber(string.match(own, '^%d+')) or total
end

-- A limit of this run is two fields of the run's hash: its total, and per call "amount expiry".
local function settle_run(name)
  for _, field in ipairs(call('HKEYS', KEYS[2])) do
    local member = string.match(field, '^(%x+):')
    if member and #member == 64 and string.sub(field, 66) == name then
      local amount, expiry = string.match(call('HGET', KEYS[2], field), '^(%d+) (%d+)$')
      if tonumber(expiry) <= now then
        local spent = burned(ARGV[7], member)
        if spent == false then
          call('HINCRBY', KEYS[2], 'total:' .. name, digits(-tonumber(amount)))
        end
        if spent ~= nil then
          call('HDEL', KEYS[2], field)
        end
      end
    end
  end
  return others(unpack(call('HMGET', KEYS[2], 'total:' .. name, digest .. ':' .. name)))
end

-- A limit beyond this run is a hash (`total`, and per call "amount:run") and a sorted set of times: each call's digest at the time of its
-- mint (windows only), and its digest after a '-' at minus the time its token expires.
local function forget(counter, times, member, amount)
  call('HINCRBY', counter, 'total', digits(-amount))
  call('HDEL', counter, member)
  call('ZREM', times, member, '-' .. member)
end

local function settle(counter, times, every)
  for _, name in ipairs(call('ZRANGEBYSCORE', times, digits(-now), '0', 'LIMIT', 0, 10000)) do
    local member = string.sub(name, 2)
    local amount, owner = string.match(call('HGET', counter, member) or '', '^(%d+):(.+)$')
    local spent = not owner or burned(owner, member)
    if spent == false then
      forget(counter, times, member, tonumber(amount))
    elseif spent then
      call('ZREM', times, name)
      if every == 0 then
        call('HDEL', counter, member)
      end
    end
  end
  return others(unpack(call('HMGET', counter, 'total', digest)))
end

-- Drop what left the window. `oldest` is never later than the oldest call in it, so a mint rarely has to look.
local function slide(counter, times, left)
  for _, member in ipairs(call('ZRANGEBYSCORE', times, '(0', digits(left), 'LIMIT', 0, 10000)) do
    forget(counter, times, member, tonumber(string.match(call('HGET', counter, member) or '', '^(%d+):') or '0'))
  end
  local first = call('ZRANGEBYSCORE', times, '(0', '(+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  call('HSET', counter, 'oldest', digits(tonumber(first[2] or now)))
  return call('HMGET', counter, 'total', digest, 'fresh', 'oldest')
end

local totals, counters, beyond, place = {}, {}, position, 4
for i = 1, count do
  local argument = 11 + 4 * i
  local amount, maximum, every, name = ARGV[argument + 1], tonumber(ARGV[argument + 2]), tonumber(ARGV[argument + 3]), ARGV[argument + 4]
  amount = tonumber(amount)
  local total
  if name ~= '' then
    place = place + 2
    total = others(run[place], run[place + 1]) + amount
    if total > maximum then
      total = settle_run(name) + amount
    end
  else
    local counter, times = KEYS[beyond + 1], KEYS[beyond + 2]
    beyond = beyond + 2
    local kept = call('HMGET', counter, 'total', digest, 'fresh', 'oldest')
    if kept[1] and every > 0 and tonumber(kept[4] or '0') <= now - every then
      kept = slide(counter, times, now - every)
    end
    total = others(kept[1], kept[2]) + amount
    if total > maximum then
      total = settle(counter, times, every) + amount
    end
    counters[i] = kept
  end
  if total > maximum then
    return refuse('limit', digits(i - 1))
  end
  totals[i] = digits(total)
end

-- the calls' records outlive both the run and this token; `kept` says until when
local life = math.max(tonumber(run[3]), now + ttl) + 60000

-- (8) write; first the single-use key: a jti is never used twice
if not call('SET', KEYS[1], ARGV[3], 'NX', 'PX', ARGV[4]) then
  return redis.error_reply('ERR this jti exists')
end
if old_jti then
  call('DEL', prefix .. 'jti:' .. old_jti)
end
call('HSET', KEYS[3], digest .. ':mint', gen .. ' ' .. ARGV[6] .. ' ' .. digits(now), 'opened', run[5] or '0')
if record[2] ~= 'redeemed' then -- else head, time and facts of the first redemption stand
  call('HSET', KEYS[3], digest .. ':head', ARGV[2], digest .. ':status', 'minted', digest .. ':free', free and '1' or '')
end
local fields = {}
if tonumber(run[4] or '0') < life then
  fields[1], fields[2] = 'kept', digits(life)
  call('PEXPIREAT', KEYS[3], fields[2])
end
if spend then
  call('HSET', hold, 'state', 'spent', 'call', digest)
  call('HINCRBY', hold, 'rev', 1)
  before = raise_history(KEYS[4], gen, before)
end
if lastkey then
  call('SET', lastkey, ARGV[13])
end
local expiry = now + ttl
local expires = digits(expiry)
for i = 1, count do
  local argument = 11 + 4 * i
  local amount, every, name = ARGV[argument + 1], tonumber(ARGV[argument + 3]), ARGV[argument + 4]
  if name ~= '' then
    local last = #fields
    fields[last + 1], fields[last + 2], fields[last + 3], fields[last + 4] =
      'total:' .. name, totals[i], digest .. ':' .. name, amount .. ' ' .. expires
  else
    local counter, times, kept = KEYS[position + 1], KEYS[position + 2], counters[i]
    position = position + 2
    call('HSET', counter, 'total', totals[i], digest, amount .. ':' .. ARGV[7])
    if every == 0 then
      call('ZADD', times, digits(-expiry), '-' .. digest)
    else
      call('ZADD', times, digits(-expiry), '-' .. digest, digits(now), digest)
      -- The keys' expiry is set later than needed, and rarely. A member that never leaves ('+') keeps the set, and with it its
      -- expiry, when all others have left.
      local keep = every + ttl + 60000
      if tonumber(kept[3] or '0') < now + keep then
        call('HSET', counter, 'fresh', digits(now + 2 * keep), 'oldest', kept[4] or digits(now))
        call('ZADD', times, '+inf', '+')
        call('PEXPIRE', counter, digits(3 * keep))
        call('PEXPIRE', times, digits(3 * keep))
      end
    end
  end
end
if #fields > 0 then
  call('HSET', KEYS[2], unpack(fields))
end
return {KEYS[1], 'ok', gen, spend and 'spent' or '', lost and '' or before}
