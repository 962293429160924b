-- KEYS jti run burns redemptions history revoked... [hold] [lastkey] [memory] (limit times)...
-- ARGV digest head binding ttl_ms revision jti run read counted #revoked #limits hold_rev thumbprint seen unspent attempt
--   (amount maximum every_ms name)... memory fence
-- With an `attempt` the call is redeemed, too, by whoever asks: there is no token and no single-use key, and nothing is reserved, but taken.
-- `redemptions` is the history of the call's audience, of which `counted` was seen; `history` the tenant's, of which `seen` was.
-- Everything is checked first, then everything is written. (Before that, limits only drop what no longer counts.)
local call, digest, ttl, burns = redis.call, ARGV[1], tonumber(ARGV[4]), KEYS[3]
local mints, clock = beside(burns)
local attempt = ARGV[16] ~= '' and ARGV[16]
local prefix, audience = string.match(KEYS[2], '^ag:{[^}]*}:'), string.match(burns, '}:burns:(%x+):')
local now, gen = now_ms(), lineage()

local before, lost, served = history(KEYS[5], ARGV[14])
local redemptions, uncounted = history(KEYS[4], ARGV[9])
if uncounted and not lost then -- it stops the whole tenant; what is missing, the history of the audience tells
  lost = new_epoch(gen) .. ' 0'
  mark_lost(KEYS[5], lost)
end
local free = ARGV[8] == '1' and ARGV[11] == '0' and ARGV[12] == '' and ARGV[13] == '' -- a read that takes nothing: forgetting it does no harm

local function refuse(kind, detail)
  return {KEYS[1], kind, gen, detail or '', detail == 'lost' and lost or lost and '' or before, uncounted and '' or redemptions, '', '', '', ''}
end

-- The limits. One with a name counts this run only, as a field of the run's hash; one without has a hash of its own, and a sorted set of what
-- is reserved, by expiry. What a call took ("amount bucket audience") is a field of the run for as long as it counts.
local asked = {'rev', 'closed', 'ends', 'kept', 'opened', 'due', 'form', 'audiences', 'clock', 'fence', 'locked', 'stored'}
local limits, shares, place, first = {}, {}, 1 + #KEYS, #asked
for i = 1, tonumber(ARGV[11]) do
  place = place - (ARGV[16 + 4 * i] == '' and 2 or 0)
end
for i = 1, tonumber(ARGV[11]) do
  local argument, name = 13 + 4 * i, ARGV[16 + 4 * i]
  local amount, maximum = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  if name ~= '' then
    local total = 'total:' .. name
    asked[#asked + 1] = total
    limits[i] = {amount = amount, maximum = maximum, total = total, own = 0, sum = 0}
    shares[i] = digest .. ':run:' .. name .. ':share'
  else
    local hash, every, share = KEYS[place], tonumber(ARGV[argument + 2]), ':all:' .. KEYS[place] .. ':share'
    limits[i] = {
      amount = amount, maximum = maximum, every = every, hash = hash, times = KEYS[place + 1], total = 'total', share = share,
      own = 0, own_bucket = 0, bucket = '0', first = 0, kept = false, sum = 0,
    }
    shares[i], place = digest .. share, place + 2
  end
end

-- (1) the run, with its own limits and what this call took of any
local totals = #asked
for i = 1, audience and #shares or 0 do
  asked[totals + i] = shares[i]
end
local run, taken = call('HMGET', KEYS[2], unpack(asked)), {}
if not run[1] then
  return refuse('missing')
end
if run[2] then
  return refuse('closed', run[2] == 'denials' and 'denials' or '')
end
local fence = ARGV[#ARGV]
if ARGV[8] ~= '1' and fence ~= (run[10] or '') and (fence ~= '' or tonumber(run[11]) > now) then
  return refuse('locked') -- another resume of the conversation has it, or had it after this one
end
if not run[7] ~= not audience then
  return refuse('stale') -- of another form
end

-- (2) revocations; one by time stops the runs that were opened up to then
local position = 5 + tonumber(ARGV[10])
if revoked({unpack(KEYS, 6, position)}, tonumber(run[5] or '0')) then
  return refuse('revoked')
end

-- (3) the same call again. After its redemption: a read, whatever came of it, three times more; anything else only where nothing happened.
-- After a mint in another lineage: a read, or a call whose token this gate alone held and did not spend. After a mint that the store has
-- lost ("!": its gate knows of it, and of what it was told then): whoever had its token may have redeemed it
local listed = not audience or string.find(run[8] or '', audience, 1, true)
local minted = listed and call('HMGET', mints, digest .. ':mint', digest .. ':ran', 'opened', digest .. ':head', digest .. ':free') or {}
local said = call('HMGET', burns, 'rev', digest .. ':status', digest .. ':outcome', digest .. ':runs', digest .. ':by')
local old_shares = not audience and #shares > 0 and call('HMGET', burns, unpack(shares))
for i = 1, #shares do
  taken[i] = old_shares and old_shares[i] or run[totals + i]
end
local whole = minted[3] and (said[1] or not audience)
if not whole and (audience and listed or not audience and run[4]) or attempt and call('HEXISTS', clock, 'opened') == 0 then
  return refuse('missing') -- its calls were evicted, or deleted; or whether it was revoked
end
local old_gen, old_jti = minting(minted[1])
local told = string.match(ARGV[15], '^!(.*)$')
if said[2] == 'redeemed' then
  local outcome, again = said[3], nil
  if ARGV[8] == '1' then
    again = count_of(said[4]) <= 3
  else
    again = outcome == 'failed' or outcome == 'not_run'
  end
  if not again then
    return refuse(outcome == 'done' and 'already_redeemed' or outcome == 'failed' and 'failed' or 'outcome_unknown')
  end
elseif old_jti and old_gen ~= gen and ARGV[8] ~= '1' and old_jti ~= ARGV[15] then
  return refuse('outcome_unknown')
elseif not old_jti and told and ARGV[8] ~= '1' and not lost then
  if told == '' then
    lost = new_epoch(gen) .. ' 0' -- no count was seen, so nothing is missing from the logs
    mark_lost(KEYS[5], lost)
  else
    before, lost = history(KEYS[5], told)
  end
end
local ran = said[2] == 'redeemed' and minted[4]
local stands = ran and ARGV[8] == '1' and ran or '' -- head, time and facts of a read's first redemption stand
free = free and (stands == '' or minted[5] == '1')
if lost and not free then
  return refuse('outcome_unknown', 'lost')
end

-- (4) decided on exactly this state of the run, in this lineage of the store; its calls ("-") do not matter to every decision
local records = records_of(KEYS[2], run[7], run[8])
local known = run[1] .. '.' .. revisions(records, burns, said[1]) .. '.' .. gen == ARGV[5]
if not known and run[1] .. '.-.' .. gen ~= ARGV[5] then
  return refuse('stale')
end

-- one that a person released has room: a run that follows keeps what such a call rests on, and is as full
if not minted[4] and ARGV[12] == '' and tonumber(run[12] or '0') >= CALLS then
  local stored = {}
  for i, each in ipairs(records) do
    stored[i] = beside(each)
  end
  if declare then
    declare(stored)
  end
  for _, each in ipairs(stored) do
    for _, other in ipairs(all_calls(each)) do
      if cjson.decode(call('HGET', each, other .. ':head')).read then
        return refuse('full') -- the run that follows may drop a read; acts stay
      end
    end
  end
  return refuse('full_of_acts')
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

-- (6) the account's own key: its first token records it. After a loss that was accepted, a record may be among what was lost
local lastkey = nil
if ARGV[13] ~= '' then
  position = position + 1
  lastkey = KEYS[position]
  local own, before = call('GET', lastkey), string.match(lastkey, '^([^\n]*)\n') -- earlier versions recorded one for all of a name
  local last = own or before and call('GET', before)
  if last and string.match(last, '^%d+ (.+)$') ~= ARGV[13] or not last and call('HEXISTS', KEYS[5], 'keyless') == 1 then
    return refuse('key_changed')
  end
  lastkey = not own and lastkey
end

-- (7) what is remembered of its user: the call on which the decision rests stands still; and what is to be remembered once this call is done
local memory, place, rests_on, span, body = nil, unpack(ARGV[#ARGV - 1] ~= '' and cjson.decode(ARGV[#ARGV - 1]) or {})
if place then
  memory = KEYS[position + 1]
  local stands = rests_on ~= '' and not lost and standing_memory(prefix, call('HGET', memory, place))
  if rests_on ~= '' and not (stands and stands[1] == rests_on) then
    return refuse('stale')
  end
  local asked = spend and body ~= '' and audience and tonumber(read_hold(hold)[5] or '0')
  if not asked or asked <= tonumber(call('HGET', memory, 'forgotten') or '0') or ended_since(prefix, cjson.decode(body).stops, asked) then
    memory = nil
  end
end

-- (8) limits. A share is reserved until its token expires. Then it is given back only if that token is provably unburned: the call's record
-- says minted and not redeemed, in this lineage, and the single-use key is gone. A share that was burned, or cannot be proven unburned, counts on.
-- Whatever the number of calls, a mint looks at few of them: what it did not come to counts meanwhile.
local SOME, MANY = 4, 200

local function settle(hash, times, most, limit_of)
  for _, member in ipairs(call('ZRANGEBYSCORE', times, '-inf', '(' .. digits(now), 'LIMIT', 0, most)) do
    local taker, owner, limit = string.sub(member, 1, 64), limit_of(string.sub(member, 66))
    if taker ~= digest then
      local held, records, tokens = prefix .. 'run:' .. owner, prefix .. 'calls:' .. owner, prefix .. 'jti:'
      local share = call('HGET', held, taker .. limit.share)
      local amount, bucket, whose = string.match(share or '', '^(%d+) (%d+) (%x+)$')
      if whose then
        records, tokens = prefix .. 'burns:' .. whose .. ':' .. owner, prefix .. 'token:' .. whose .. ':'
      else
        held = records
        amount, bucket = string.match(call('HGET', held, taker .. limit.share) or '', '^(%d+) (%d+)$')
      end
      local minted_in, jti = minting(call('HGET', (beside(records)), taker .. ':mint'))
      local status, rev = unpack(call('HMGET', records, taker .. ':status', 'rev'), 1, 2)
      local unburned = minted_in == gen and (status == 'minted' or not status and rev)
      if not unburned or call('EXISTS', tokens .. jti) == 0 then
        if unburned and amount then
          call('HDEL', held, taker .. limit.share)
          if limit.every == 0 or tonumber(bucket) >= limit.first then
            local back = digits(-tonumber(amount))
            call('HINCRBY', hash, limit.total, back)
            if limit.every > 0 then
              call('HINCRBY', hash, bucket, back)
            end
          end
        end
        call('ZREM', times, member)
      end
    end
  end
  local next_due = call('ZRANGE', times, 0, 0, 'WITHSCORES')[2]
  call('HSET', hash, 'due', next_due and digits(tonumber(next_due)) or '')
end

local function is_due(due)
  return due and due ~= '' and tonumber(due) < now
end

local function sum_of(limit, total) -- what would be taken with this call; `own` is what it took itself, as far as that still counts
  limit.sum = tonumber(total or '0') - (total and limit.own or 0) + limit.amount
  return limit.sum > limit.maximum
end

-- Of this run: what it reserved is one sorted set, of calls and limits.
local expiry, reserved = now + ttl, prefix .. 'reserved:' .. ARGV[7]
local function sum_run()
  local at, over = first, false
  for i, limit in ipairs(limits) do
    if not limit.times then
      at, limit.own = at + 1, tonumber(string.match(taken[i] or '0', '^%d+'))
      over = sum_of(limit, run[at]) or over
    end
  end
  return over
end
local over = sum_run()
if totals > first and is_due(run[6]) then
  settle(KEYS[2], reserved, over and MANY or SOME, function(name)
    return ARGV[7], {total = 'total:' .. name, share = ':run:' .. name .. ':share', every = 0}
  end)
  run = call('HMGET', KEYS[2], unpack(asked))
  sum_run()
end

-- Beyond this run. A clock that went back counts in the oldest bucket, so that none comes back that was dropped.
local function sum_beyond(limit, from)
  local kept = call('HMGET', limit.hash, 'total', 'due', 'fresh', 'first', limit.bucket)
  limit.first = math.max(tonumber(kept[4] or '0'), from)
  if limit.own_bucket < limit.first then
    limit.own = 0 -- it left the window
  end
  if tonumber(limit.bucket) < limit.first then
    limit.bucket = digits(limit.first)
    kept[5] = call('HGET', limit.hash, limit.bucket)
  end
  limit.kept = kept
  return sum_of(limit, kept[1])
end

for i, limit in ipairs(limits) do
  if limit.times then
    local every, amount, bucket = limit.every, string.match(taken[i] or '0 0', '^(%d+) (%d+)')
    local from = every > 0 and bucket_of(now - every, every) or 0
    limit.own, limit.own_bucket, limit.bucket = tonumber(amount), tonumber(bucket), every > 0 and digits(bucket_of(now, every)) or '0'
    local before = string.match(limit.hash, '^([^\n]*)\n') -- earlier versions counted all of a name, whoever proved them
    if before and call('EXISTS', before) == 1 then
      if every > 0 and tonumber(call('HGET', before, 'first') or '0') < from then
        slide(before, from)
      end
      limit.maximum = limit.maximum - tonumber(call('HGET', before, 'total') or '0')
    end
    local over = sum_beyond(limit, from)
    if limit.kept[1] and tonumber(limit.kept[4] or '0') < from then
      slide(limit.hash, from)
      over = sum_beyond(limit, from)
    end
    if is_due(limit.kept[2]) then
      settle(limit.hash, limit.times, over and MANY or SOME, function(owner)
        return owner, limit
      end)
      sum_beyond(limit, from)
    end
  end
  if limit.sum > limit.maximum then
    return refuse('limit', digits(i - 1))
  end
end

-- the calls' records outlive both the run and this token; `kept` says until when
local life = math.max(tonumber(run[3]), now + ttl) + 60000

-- (9) write; first the single-use key: a jti is never used twice
if not attempt and not call('SET', KEYS[1], ARGV[3], 'NX', 'PX', ARGV[4]) then
  return redis.error_reply('ERR this jti exists')
end
if old_jti then
  call('DEL', string.sub(KEYS[1], 1, -1 - #ARGV[6]) .. old_jti)
end
local at = digits(later(now, run[9]))
local written = {digest .. ':mint', gen .. ' ' .. ARGV[6] .. ' ' .. at, 'opened', run[5] or '0'}
if stands == '' then -- an act that did not happen is another attempt
  written[5], written[6], written[7], written[8] = digest .. ':head', ARGV[2], digest .. ':free', free and '1' or ''
  if not (audience or ran) then
    written[9], written[10] = digest .. ':status', 'minted'
  end
end
if ran and said[5] and (said[5] == old_jti or said[5] == minted[2]) then
  written[#written + 1], written[#written + 2] = digest .. ':ran', said[5]
end
local fields, kept = {'clock', at}, digits(math.max(tonumber(run[4] or '0'), life))
if not minted[4] then
  fields[3], fields[4] = 'stored', digits(tonumber(run[12] or '0') + 1)
end
for i, limit in ipairs(limits) do
  local into = audience and fields or written
  into[#into + 1], into[#into + 2] = shares[i], ARGV[13 + 4 * i] .. ' ' .. (limit.bucket or '0') .. (audience and ' ' .. audience or '')
end
call('HSET', mints, unpack(written))
if not listed then -- the server's own record begins here, so that it is missed when it is gone
  if not said[1] then
    call('HSET', burns, 'rev', '0')
  end
  call('PEXPIREAT', burns, kept)
  call('PEXPIREAT', mints, kept)
  fields[#fields + 1], fields[#fields + 2] = 'audiences', (run[8] or '') .. ' ' .. audience
  if not string.find(served, audience, 1, true) then
    call('HSET', KEYS[5], 'audiences', served .. ' ' .. audience)
  end
end
if kept ~= run[4] then
  fields[#fields + 1], fields[#fields + 2] = 'kept', kept
  call('PEXPIREAT', clock, kept)
  for _, each in ipairs(records) do
    call('PEXPIREAT', each, kept)
    call('PEXPIREAT', (beside(each)), kept)
  end
end
if spend then
  call('HSET', hold, 'state', 'spent', 'call', digest)
  call('HINCRBY', hold, 'rev', 1)
  before = raise_history(KEYS[5], gen, before)
end
if memory then
  call('HSET', memory, place, digest .. ' ' .. digits(now) .. ' ' .. digits(now + span) .. ' ' .. audience .. ' ' .. body)
  call('PEXPIRE', memory, digits(YEAR))
  call('HSET', burns, digest .. ':remember', '1')
  local done, oldest, first = string.gsub(burns, '[^:]*$', 'done:' .. digest, 1), nil, math.huge
  call('HSET', done, 'at', digits(now))
  call('PEXPIRE', done, digits(span))
  if call('HLEN', memory) - call('HEXISTS', memory, 'forgotten') > 200 then
    local kept = call('HGETALL', memory)
    for i = 1, #kept, 2 do
      local at = tonumber(string.match(kept[i + 1], '^%x+ (%d+) ') or '')
      if at and at < first then
        oldest, first = kept[i], at
      end
    end
    call('HDEL', memory, oldest)
  end
end
if lastkey then
  call('SET', lastkey, digits(now) .. ' ' .. ARGV[13])
end
local expires, scored = digits(expiry), {}
for _, limit in ipairs(limits) do
  if not limit.times then
    fields[#fields + 1], fields[#fields + 2] = limit.total, digits(limit.sum)
    if not attempt then
      scored[#scored + 1], scored[#scored + 2] = expires, digest .. ':' .. string.sub(limit.total, 7)
    end
  else
    local hash, kept, every, changed = limit.hash, limit.kept, limit.every, {'total', digits(limit.sum)}
    local waiting = attempt or kept[2] and kept[2] ~= ''
    if not attempt then
      if not waiting or tonumber(kept[2]) > expiry then
        changed[3], changed[4] = 'due', expires
      end
      call('ZADD', limit.times, expires, digest .. ':' .. ARGV[7])
    end
    if every > 0 then
      local size, own = tonumber(kept[5] or '0') + limit.amount, kept[1] and limit.own or 0
      if own > 0 and limit.own_bucket == tonumber(limit.bucket) then
        size = size - own
      elseif own > 0 then
        call('HINCRBY', hash, digits(limit.own_bucket), digits(-own))
      end
      local last, keep = #changed, every + ttl + 60000
      changed[last + 1], changed[last + 2], changed[last + 3], changed[last + 4] = limit.bucket, digits(size), 'first', digits(limit.first)
      if tonumber(kept[3] or '0') < now + keep then -- the keys' expiry is set later than needed, and rarely
        changed[last + 5], changed[last + 6], waiting = 'fresh', digits(now + 2 * keep), false
        call('HSET', hash, unpack(changed))
        call('PEXPIRE', hash, digits(3 * keep))
      else
        call('HSET', hash, unpack(changed))
      end
      if not waiting then -- a set that was empty has no expiry
        call('PEXPIRE', limit.times, digits(3 * keep))
      end
    else
      call('HSET', hash, unpack(changed))
    end
  end
end
if #scored > 0 then
  local waiting = run[6] and run[6] ~= ''
  call('ZADD', reserved, unpack(scored))
  if not waiting or kept ~= run[4] then
    call('PEXPIREAT', reserved, kept)
  end
  if not waiting or tonumber(run[6]) > expiry then
    fields[#fields + 1], fields[#fields + 2] = 'due', expires
  end
end
call('HSET', KEYS[2], unpack(fields))
local counts, revision, when = attempt and not free, '', ''
if attempt then
  local rev, redeemed_at = redeem_call(burns, digest, ARGV[6], attempt, {said[5], said[3], said[4], said[1]}, now)
  redemptions = counts and raise_history(KEYS[4], gen, redemptions) or redemptions
  records[#records + 1] = not listed and burns or nil
  revision, when = known and run[1] .. '.' .. revisions(records, burns, rev) .. '.' .. gen or '', redeemed_at
end
return {KEYS[1], 'ok', gen, spend and 'spent' or '', lost and '' or before, lost and '' or redemptions, stands, counts and '1' or '', revision,
  when}
