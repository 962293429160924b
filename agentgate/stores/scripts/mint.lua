-- KEYS jti run calls revoked... [hold] [lastkey] (limit window pending)...
-- ARGV digest head binding ttl_ms revision jti run read prefix #revoked #limits hold_rev thumbprint (amount maximum every_ms for_run)...
-- Everything is checked first, then everything is written. (Before the writes, limits only drop what no longer counts.)
local digest, ttl, prefix = ARGV[1], tonumber(ARGV[4]), ARGV[9]
local now, gen = now_ms(), lineage()

local function refuse(kind, detail)
  return {KEYS[1], kind, gen, detail or ''}
end

-- (1) the run
local run = redis.call('HMGET', KEYS[2], 'rev', 'closed')
if not run[1] then
  return refuse('missing')
end
if run[2] then
  return refuse('closed')
end

-- (2) revocations
local revocations, position = {}, 3
for i = 1, tonumber(ARGV[10]) do
  position = position + 1
  revocations[i] = KEYS[position]
end
if revoked(revocations, now) then
  return refuse('revoked')
end

-- (3) the same call again: redeemed once is done; from another history only a read may be minted again
local call = redis.call('HMGET', KEYS[3], 'rev', digest .. ':status', digest .. ':mint')
if call[2] and call[2] ~= 'minted' then
  return refuse('already_redeemed')
end
local old_gen, old_jti = nil, nil
if call[2] then
  old_gen, old_jti = minting(call[3])
  if old_gen ~= gen and ARGV[8] ~= '1' then
    return refuse('outcome_unknown')
  end
end

-- (4) decided on this state of the run, and no other
if run[1] .. '.' .. (call[1] or '0') ~= ARGV[5] then
  return refuse('stale')
end

-- (5) a jti is never used twice
if redis.call('EXISTS', KEYS[1]) == 1 then
  return redis.error_reply('ERR this jti exists')
end

-- (6) the release: of this revision, or consumed by this very call
local hold, consume = nil, false
if ARGV[12] ~= '' then
  position = position + 1
  hold = KEYS[position]
  local state = redis.call('HMGET', hold, 'state', 'rev', 'call')
  if not state[1] then
    return refuse('hold', 'missing')
  elseif state[1] == 'released' then
    if state[2] ~= ARGV[12] then
      return refuse('hold', 'stale')
    end
    consume = true
  elseif state[1] ~= 'consumed' or state[3] ~= digest then
    return refuse('hold', state[1])
  end
end

-- (7) the account's last token was for the same key
local lastkey = nil
if ARGV[13] ~= '' then
  position = position + 1
  lastkey = KEYS[position]
  local last = redis.call('GET', lastkey)
  if last and last ~= ARGV[13] then
    return refuse('key_changed')
  end
end

-- (8) limits. `counter`: total, and per call "amount:run"; `window`: calls by time of mint; `pending`: calls by expiry of their
-- token, until it is known whether it was burned.
local function forget(limit, member, amount)
  redis.call('HINCRBY', limit.counter, 'total', digits(-amount))
  redis.call('HDEL', limit.counter, member)
  redis.call('ZREM', limit.window, member)
  redis.call('ZREM', limit.pending, member)
end

-- Look at reservations whose token has expired. Given back only what is provably unburned in this history: its record says
-- minted, in this lineage, and its single-use key is gone. What was burned or cannot be proven counts for good.
local function settle(limit)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', limit.pending, '-inf', digits(now), 'LIMIT', 0, 10000)) do
    local amount, owner = string.match(redis.call('HGET', limit.counter, member) or '', '^(%d+):(.+)$')
    local record = owner and redis.call('HMGET', prefix .. 'calls:' .. owner, member .. ':status', member .. ':mint')
    local minted_in, jti = minting(record and record[2])
    if record and record[1] == 'minted' and minted_in == gen then
      if redis.call('EXISTS', prefix .. 'jti:' .. jti) == 0 then
        forget(limit, member, tonumber(amount))
      end
    else
      redis.call('ZREM', limit.pending, member)
      if limit.every == 0 then
        redis.call('HDEL', limit.counter, member)
      end
    end
  end
end

local limits, argument = {}, 13
for i = 1, tonumber(ARGV[11]) do
  local limit = {
    counter = KEYS[position + 1], window = KEYS[position + 2], pending = KEYS[position + 3],
    amount = tonumber(ARGV[argument + 1]), maximum = tonumber(ARGV[argument + 2]), every = tonumber(ARGV[argument + 3]),
    for_run = ARGV[argument + 4] == '1',
  }
  position, argument = position + 3, argument + 4
  if limit.every > 0 then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', limit.window, '-inf', digits(now - limit.every), 'LIMIT', 0, 10000)) do
      forget(limit, member, tonumber(string.match(redis.call('HGET', limit.counter, member) or '', '^(%d+):') or '0'))
    end
  end
  local function total()
    local taken = redis.call('HMGET', limit.counter, 'total', digest, 'fresh')
    limit.fresh = tonumber(taken[3] or '0')
    local own = tonumber(string.match(taken[2] or '', '^(%d+):') or '0')
    limit.total = tonumber(taken[1] or '0') - own + limit.amount
    return limit.total
  end
  if total() > limit.maximum then
    settle(limit)
    if total() > limit.maximum then
      return refuse('limit', digits(i - 1))
    end
  end
  limits[i] = limit
end

-- (9) write
if old_jti then
  redis.call('DEL', prefix .. 'jti:' .. old_jti)
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('HSET', KEYS[3], digest .. ':head', ARGV[2], digest .. ':status', 'minted',
  digest .. ':mint', gen .. ' ' .. ARGV[6] .. ' ' .. digits(now))
-- the record outlives both the run and this token
local life = math.max(redis.call('PTTL', KEYS[2]), ttl) + 60000
redis.call('PEXPIRE', KEYS[3], digits(life))
if consume then
  redis.call('HSET', hold, 'state', 'consumed', 'call', digest)
  redis.call('HINCRBY', hold, 'rev', 1)
end
if lastkey then
  redis.call('SET', lastkey, ARGV[13])
end
for _, limit in ipairs(limits) do
  redis.call('HSET', limit.counter, 'total', digits(limit.total), digest, digits(limit.amount) .. ':' .. ARGV[7])
  redis.call('ZADD', limit.pending, digits(now + ttl), digest)
  local keep = limit.for_run and life or nil
  if limit.every > 0 then
    redis.call('ZADD', limit.window, digits(now), digest)
    keep = limit.every + ttl + 60000
  end
  -- The keys' lives are set longer than needed, and seldom. A member that never leaves keeps a set, and so its life, when all
  -- others have left.
  if keep and limit.fresh < now + keep then
    redis.call('HSET', limit.counter, 'fresh', digits(now + 2 * keep))
    redis.call('ZADD', limit.pending, '+inf', '-')
    if limit.every > 0 then
      redis.call('ZADD', limit.window, '+inf', '-')
      redis.call('PEXPIRE', limit.window, digits(3 * keep))
    end
    redis.call('PEXPIRE', limit.counter, digits(3 * keep))
    redis.call('PEXPIRE', limit.pending, digits(3 * keep))
  end
end
return {KEYS[1], 'ok', gen, ''}
