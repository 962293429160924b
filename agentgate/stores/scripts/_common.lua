-- Shared by all scripts. Integers leave Lua as plain digits (exact below 2^53), never with an exponent.
local function digits(number)
  return number == 0 and '0' or string.format('%.0f', number) -- a double's -0 would become '-0', which is not an integer
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The last mint in a call's record: lineage, jti and time (ms).
local function minting(text)
  return string.match(text or '', '^(%x+) (%S+) (%d+)$')
end

-- True if any of these keys revokes the tokens of a run opened at `opened` (ms). A number revokes the runs opened up to that time, any
-- other value ('*', 'signed') everything.
local function revoked(keys, opened)
  for _, value in ipairs(redis.call('MGET', unpack(keys))) do
    if value and opened <= (tonumber(value) or math.huge) then
      return true
    end
  end
  return false
end

-- Why a run takes no change: missing or closed; nil: it is open.
local function shut_run(run)
  local known = redis.call('HMGET', run, 'rev', 'closed')
  return not known[1] and 'missing' or known[2] and 'closed' or nil
end

-- The time (ms) of what happens now in a run: never before what happened in it already, whatever this clock did since. `known` is the field
-- `clock` of its calls, which is to become what is returned here.
local function later(now, known)
  return math.max(now, tonumber(known or '0'))
end

-- A hold in a list of what waits: its score is until when it waits, or when it ended. A thousand that ended stay.
local function list_hold(list, id, score, now, ttl)
  redis.call('ZADD', list, digits(score), id)
  local ended = redis.call('ZCOUNT', list, '-inf', now)
  if ended > 1000 then
    redis.call('ZREMRANGEBYRANK', list, 0, ended - 1001)
  end
  if redis.call('PTTL', list) < ttl then
    redis.call('PEXPIRE', list, digits(ttl))
  end
end

-- It waits no more: the lists that it is in say so.
local function end_hold(hold, id)
  local now = digits(now_ms())
  for list in string.gmatch(redis.call('HGET', hold, 'lists') or '', '%S+') do
    redis.call('ZADD', list, 'XX', now, id)
  end
end

-- When the run's user last took something back, or it was closed: what was minted or held before is void.
local function take_back(run, calls)
  local at = later(now_ms(), redis.call('HGET', calls, 'clock'))
  redis.call('HSET', calls, 'withdrawn', digits(at), 'clock', digits(at + 1))
  if redis.call('PTTL', calls) < 0 then
    redis.call('PEXPIRE', calls, redis.call('PTTL', run))
  end
  local start, name = string.match(calls, '^(.*:)calls:(.*)$')
  for _, id in ipairs(redis.call('SMEMBERS', start .. 'open:' .. name)) do
    end_hold(start .. 'hold:' .. id, id)
  end
end

local function taken_back(at, since)
  return since and tonumber(at or '0') <= tonumber(since)
end

local old_words = {waiting = 'pending', consumed = 'spent'} -- as earlier versions wrote them

-- A hold is its state, body, revision, the call that spent it, when it was opened, and the key of its run's calls; `deadline` (ms) ends the
-- time to answer it. A refusal stands, and so does a release whose call ran. Of others, the user's taking back cancels, the deadline ends.
local function read_hold(key)
  local hold = redis.call('HMGET', key, 'state', 'body', 'rev', 'call', 'at', 'calls', 'deadline')
  hold[1] = old_words[hold[1]] or hold[1]
  if not hold[1] or hold[1] == 'refused' then
    return hold
  end
  local withdrawn, status, outcome = unpack(redis.call('HMGET', hold[6], 'withdrawn', hold[4] .. ':status', hold[4] .. ':outcome'))
  if hold[1] == 'spent' and status == 'redeemed' and outcome ~= 'failed' and outcome ~= 'not_run' then
    return hold
  end
  if taken_back(hold[5], withdrawn) then
    hold[1] = 'cancelled'
  elseif hold[7] and now_ms() >= tonumber(hold[7]) then
    hold[1] = 'expired'
  end
  return hold
end

-- A tenant's history is one hash: `count` of what must never be forgotten (redemptions, spent releases, revocations), in the `epoch` (lineage
-- and time of the first event) in which it is counted; `until:EPOCH` is the count at which an earlier epoch ended. A process remembers the
-- last "epoch count" it saw. Where that is not found here, the store has lost it: `lost` then tells everybody, until it is reconciled.
-- Returns the history, and what is lost or false.
local function history(key, seen)
  local epoch, count = string.match(seen, '^(%S+) (%d+)$')
  local kept = redis.call('HMGET', key, 'epoch', 'count', 'lost', 'until:' .. (epoch or ''))
  local lost = kept[3]
  if epoch and not lost then
    local reached = epoch == kept[1] and kept[2] or kept[4] or '-1'
    if tonumber(reached) < tonumber(count) then
      lost = seen
      redis.call('HSET', key, 'lost', seen)
    end
  end
  return kept[1] and kept[1] .. ' ' .. kept[2] or '', lost
end

-- A name that no other epoch has: two of one lineage begin in different microseconds.
local function new_epoch(gen)
  local time = redis.call('TIME')
  return gen .. '.' .. time[1] .. string.format('%06d', tonumber(time[2]))
end

-- One more event; `gen` is the lineage now, `before` what `history` returned. Returns the new "epoch count".
local function raise_history(key, gen, before)
  local epoch, count = string.match(before, '^(%S+) (%d+)$')
  if not epoch or string.sub(epoch, 1, 40) ~= gen then
    if epoch then
      redis.call('HSET', key, 'until:' .. epoch, count)
    end
    epoch = new_epoch(gen)
  end
  count = digits(tonumber(count or '0') + 1)
  redis.call('HSET', key, 'epoch', epoch, 'count', count)
  return epoch .. ' ' .. count
end

-- A window counts in buckets, each until it is wholly outside: up to a sixtieth of the window too long, and never too little. They are in a
-- hash: `total`, `first` (the oldest bucket that counts), and the amount of each bucket under its number.
local function bucket_of(time, every)
  return math.floor(time / math.ceil(every / 60))
end

-- Drop the buckets before `first`, however many calls they count.
local function slide(hash, first)
  local kept, gone, left = redis.call('HGETALL', hash), {}, 0
  for i = 1, #kept, 2 do
    local bucket = tonumber(kept[i])
    if bucket and bucket < first then
      gone[#gone + 1], left = kept[i], left + tonumber(kept[i + 1])
    end
  end
  if #gone > 0 then
    redis.call('HDEL', hash, unpack(gone))
    redis.call('HINCRBY', hash, 'total', digits(-left))
  end
  redis.call('HSET', hash, 'first', digits(first))
end

-- The calls that changed after revision `known`, or nil if that is not on record.
local parts = {':head', ':status', ':at', ':mint', ':facts', ':outcome'}
local function calls_since(calls, known)
  local last, seen, out = tonumber(redis.call('HGET', calls, 'rev') or '0'), {}, {}
  if known > last or last - known > 500 then
    return nil
  end
  out[1], out[2] = 'rev', digits(last)
  for rev = known + 1, last do
    local digest = redis.call('HGET', calls, 'changed:' .. digits(rev))
    if not digest then
      return nil
    end
    if not seen[digest] then
      seen[digest] = true
      for i, value in ipairs(redis.call('HMGET', calls, digest .. ':head', digest .. ':status', digest .. ':at', digest .. ':mint',
        digest .. ':facts', digest .. ':outcome')) do
        if value then
          out[#out + 1], out[#out + 2] = digest .. parts[i], value
        end
      end
    end
  end
  return out
end

-- One snapshot of a run and its calls (see ops.RunRecord): of the run what a decision needs, without the counts of its limits; of the calls
-- those that changed after revision `known`, if it is of this lineage, else all. `gen` and `alone` are what `lineage` returned.
local function snapshot(run, calls, gen, alone, known)
  local names = {'header', 'rev', 'closed', 'turns', 'acts', 'turn:1'}
  local values, flat = redis.call('HMGET', run, unpack(names)), {}
  local turns = math.min(tonumber(values[4]) or 1, 1000)
  if turns > 1 then
    for n = 2, turns do
      names[n + 5] = 'turn:' .. digits(n)
    end
    values = redis.call('HMGET', run, unpack(names))
  end
  for i, name in ipairs(names) do
    if values[i] then
      flat[#flat + 1], flat[#flat + 2] = name, values[i]
    end
  end
  -- who mints acts in it: of a run that lives on a store that keeps everything, whether it still stands alone
  local acts = values[5] or 'kept'
  if acts == 'kept' then
    acts = alone and 'alone' or 'replicated'
  elseif #acts == 40 then
    acts = acts == gen and 'any' or 'nobody'
  end
  local revision, read_in = string.match(known, '^%d+%.(%d+)%.(%x+)$')
  local changed = read_in == gen and calls_since(calls, tonumber(revision)) or nil
  return gen, flat, changed or redis.call('HGETALL', calls), changed and 'since' or 'all', acts
end
