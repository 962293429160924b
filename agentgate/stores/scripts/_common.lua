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

-- The time (ms) of what happens now in a run: never before what happened in it already, whatever this clock did since. `known` is the run's
-- field `clock`, which is to become what is returned here.
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

-- The lists that a hold is in.
local function lists_of(hold)
  local out = {}
  for list in string.gmatch(redis.call('HGET', hold, 'lists') or '', '%S+') do
    out[#out + 1] = list
  end
  return out
end

-- It waits no more: its lists say so.
local function end_hold(lists, id)
  local now = digits(now_ms())
  for _, list in ipairs(lists) do
    redis.call('ZADD', list, 'XX', now, id)
  end
end

-- Whose keys they are, under `ag:{tenant}:`. Gates alone: `run:RUN`, with the shares of limits. Gates write and servers read: `clock:RUN`
-- (opened, withdrawn) and `mints:AUDIENCE:RUN` (head, mint, free and ran of each call). A server writes `burns:AUDIENCE:RUN` (what else is
-- known of its calls), and `history:AUDIENCE`. A run says so by its field `form`; one from before has all of this in `calls:RUN`.
-- From a server's records of a run: the keys of what was minted for it, and of the run's clock.
local function beside(burns)
  local first, last = string.find(burns, '}:burns:', 1, true)
  if not first then
    return burns, burns
  end
  local start = string.sub(burns, 1, first + 1)
  return start .. 'mints:' .. string.sub(burns, last + 1), start .. 'clock:' .. string.sub(burns, last + 66)
end

-- Of a run's hash: the keys of its calls' records, one for each audience that anything was minted for, in the order of the first mints.
local function records_of(run, form, audiences)
  local start, id = string.match(run, '^(ag:{[^}]*}:)run:(.+)$')
  if not form then
    return {start .. 'calls:' .. id}
  end
  local out = {}
  for audience in string.gmatch(audiences or '', '%x+') do
    out[#out + 1] = start .. 'burns:' .. audience .. ':' .. id
  end
  return out
end

-- The keys of what is known of a run's calls.
local function keys_of_calls(run)
  local form, audiences = unpack(redis.call('HMGET', run, 'form', 'audiences'), 1, 2)
  local start, id = string.match(run, '^(ag:{[^}]*}:)run:(.+)$')
  local keys = {start .. 'clock:' .. id, start .. 'reserved:' .. id}
  for _, burns in ipairs(records_of(run, form, audiences)) do
    keys[#keys + 1], keys[#keys + 2] = burns, (beside(burns))
  end
  if declare then
    declare(keys)
  end
  return keys
end

-- A run, and what is known of its calls (under these keys), is there until then (ms) at least.
local function keep_run(run, keys, until_ms)
  local ends, kept = redis.call('HGET', run, 'ends'), digits(until_ms + 60000)
  if not ends or tonumber(ends) >= until_ms then
    return
  end
  for _, key in ipairs(keys) do
    redis.call('PEXPIREAT', key, kept)
  end
  redis.call('HSET', run, 'ends', digits(until_ms), 'kept', kept)
  redis.call('PEXPIREAT', run, digits(until_ms))
end

local YEAR = 31622400000 -- ms

-- Calls that a run stores at most: each may matter to the next decision, which reads them all. With room for less than one more turn's, the
-- user's next words begin the run that follows.
local CALLS, ROOM = 500, 50

-- A whole number that a tool server wrote, or 0.
local function count_of(text)
  local count = text and string.find(text, '^%d+$') and tonumber(text) or 0
  return count < 2 ^ 53 and count or 0
end

-- Mark a call redeemed; `known` is who redeemed it before, with what outcome, how often, and the revision of the records. One that runs again:
-- its first facts stand, with their time, and once done it stays done. Returns the revision, and when.
local function redeem_call(burns, digest, jti, attempt, known, now)
  local rev, runs, at, outcome = digits(tonumber(known[4] or '0') + 1), digits(tonumber(known[3] or '0') + 1), digits(now), ''
  if known[1] then
    if redis.call('HEXISTS', burns, digest .. ':facts') == 1 then
      at = redis.call('HGET', burns, digest .. ':at')
    end
    outcome = known[2] == 'done' and 'done' or ''
  end
  redis.call('HSET', burns, digest .. ':status', 'redeemed', digest .. ':by', jti, digest .. ':attempt', attempt, digest .. ':runs', runs,
    digest .. ':at', at, digest .. ':outcome', outcome, 'rev', rev, 'changed:' .. rev, digest)
  return rev, at
end

-- What of a run's calls a decision depends on: the revision of each of its records, without noughts at the end (a mint alone changes nothing).
-- That of the record `own` is known already.
local function revisions(records, own, rev)
  local revs, last = {}, 1
  for i, key in ipairs(records) do
    revs[i] = digits(count_of(key == own and rev or redis.call('HGET', key, 'rev')))
    last = revs[i] ~= '0' and i or last
  end
  return revs[1] and table.concat(revs, '-', 1, last) or '0'
end

-- The clock of a run, and its holds that wait: the lists of each, by its id.
local function what_waits(run)
  local clock, lists, all = string.gsub(run, '}:run:', redis.call('HGET', run, 'form') and '}:clock:' or '}:calls:', 1), {}, {}
  local start, name = string.match(run, '^(.*:)run:(.*)$')
  local open, holds = start .. 'open:' .. name, {}
  if declare then
    declare({clock, open})
  end
  local ids = redis.call('SMEMBERS', open)
  for i, id in ipairs(ids) do
    holds[i] = start .. 'hold:' .. id
  end
  if declare then
    declare(holds)
  end
  for i, id in ipairs(ids) do
    lists[id] = lists_of(holds[i])
    for _, list in ipairs(lists[id]) do
      all[#all + 1] = list
    end
  end
  if declare then
    declare(all)
  end
  return {clock, lists}
end

-- When the run's user last took something back, or it was closed: what was minted or held before is void.
local function take_back(run, waits)
  local clock, at = waits[1], later(now_ms(), redis.call('HGET', run, 'clock'))
  redis.call('HSET', run, 'clock', digits(at + 1))
  redis.call('HSET', clock, 'withdrawn', digits(at))
  if redis.call('PTTL', clock) < 0 then
    redis.call('PEXPIRE', clock, redis.call('PTTL', run))
  end
  for id, lists in pairs(waits[2]) do
    end_hold(lists, id)
  end
end

local function taken_back(at, since)
  return since and tonumber(at or '0') <= tonumber(since)
end

local old_words = {waiting = 'pending', consumed = 'spent'} -- as earlier versions wrote them

-- What `read_hold` reads of these: where a hold may be taken back, its run's clock; where it is spent, its call.
local function declare_holds(holds)
  declare(holds)
  local keys = {}
  for _, hold in ipairs(holds) do
    local state, calls = unpack(redis.call('HMGET', hold, 'state', 'calls'))
    if calls and state ~= 'refused' then
      local _, clock = beside(calls)
      keys[#keys + 1] = clock
      keys[#keys + 1] = (old_words[state] or state) == 'spent' and calls or nil
    end
  end
  declare(keys)
end

-- A hold is its state, body, revision, the call that spent it, when it was opened, and the key of the records of the server that the call is
-- for; `deadline` (ms) ends the time to answer it. A refusal stands, and so does a release whose call ran. Of others, the user's taking back
-- cancels, the deadline ends.
local function read_hold(key)
  if declare then
    declare_holds({key})
  end
  local hold = redis.call('HMGET', key, 'state', 'body', 'rev', 'call', 'at', 'calls', 'deadline')
  hold[1] = old_words[hold[1]] or hold[1]
  if not hold[1] or hold[1] == 'refused' then
    return hold
  end
  local _, clock = beside(hold[6])
  local withdrawn = redis.call('HGET', clock, 'withdrawn')
  if hold[1] == 'spent' then
    local status, outcome = unpack(redis.call('HMGET', hold[6], hold[4] .. ':status', hold[4] .. ':outcome'))
    if status == 'redeemed' and outcome ~= 'failed' and outcome ~= 'not_run' then
      return hold
    end
  end
  if taken_back(hold[5], withdrawn) then
    hold[1] = 'cancelled'
  elseif hold[7] and now_ms() >= tonumber(hold[7]) then
    hold[1] = 'expired'
  end
  return hold
end

-- A history is one hash: `count` of what must never be forgotten (a tenant's spent releases, revocations and changed keys; an audience's
-- redemptions), in the `epoch` (lineage and time of the first event) in which it is counted; `until:EPOCH` is the count at which an earlier
-- epoch ended. A process remembers the last "epoch count" it saw. Where that is not found here, the store has lost it: `lost` then tells
-- everybody, until it is reconciled: a gate marks a tenant's with those of its `audiences`. Returns the history, what is lost or false, and
-- a tenant's audiences.
local function histories_beside(key)
  local out = {}
  if string.find(key, '}:history$') then
    for audience in string.gmatch(redis.call('HGET', key, 'audiences') or '', '%x+') do
      out[#out + 1] = key .. ':' .. audience
    end
  end
  if declare then
    declare(out)
  end
  return out
end

local function mark_lost(key, lost)
  local beside = histories_beside(key)
  redis.call('HSET', key, 'lost', lost)
  for _, each in ipairs(beside) do
    redis.call('HSETNX', each, 'lost', lost)
  end
end

local function history(key, seen)
  local epoch, count = string.match(seen, '^(%S+) (%d+)$')
  local kept = redis.call('HMGET', key, 'epoch', 'count', 'lost', 'until:' .. (epoch or ''), 'audiences')
  local lost = kept[3]
  if epoch and not lost then
    local reached = epoch == kept[1] and kept[2] or kept[4] or '-1'
    if tonumber(reached) < tonumber(count) then
      lost = seen
      mark_lost(key, seen)
    end
  end
  return kept[1] and kept[1] .. ' ' .. kept[2] or '', lost, kept[5] or ''
end

-- A name that no other epoch has: two of one lineage begin in different microseconds, also in one script, whose time stands still.
local begun = 0
local function new_epoch(gen)
  local time = redis.call('TIME')
  begun = begun + 1
  return gen .. '.' .. time[1] .. string.format('%06d', tonumber(time[2]) + begun - 1)
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

-- A user's memory is one hash of gates' own: place -> "call at ends audience body", and `forgotten`, the time of what its user last forgot.
-- Whether one of these (names of revocations) is revoked, or was since then (ms), or a loss of the tenant's history was accepted since.
local function ended_since(start, names, at)
  local keys = {}
  for i, name in ipairs(names) do
    keys[2 * i - 1], keys[2 * i] = start .. 'revoked:' .. name, start .. 'forgets:' .. name
  end
  for i, value in ipairs(redis.call('MGET', unpack(keys))) do
    if value and (i % 2 == 1 or at <= tonumber(value)) then
      return true
    end
  end
  return at <= tonumber(redis.call('HGET', start .. 'history', 'keyless') or '0')
end

-- What is remembered in one place: call, when, what it says; nil: nothing that counts. It does where the call was done.
local function standing_memory(start, text)
  local call, at, ends, audience, body = string.match(text or '', '^(%x+) (%d+) (%d+) (%x+) (.+)$')
  local _, ended = pcall(function()
    return tonumber(ends) <= now_ms() or ended_since(start, cjson.decode(body).stops, tonumber(at))
  end)
  if ended then -- or cannot be read
    return nil
  end
  return redis.call('HGET', start .. 'burns:' .. audience .. ':done:' .. call, 'done') == '1' and {call, at, body} or nil
end

-- The calls of one record that changed after its revision `known`; nil: that is not on record.
local function changed_since(burns, known, last)
  if known > last or last - known > 500 then
    return nil
  end
  local out, seen = {}, {}
  for rev = known + 1, last do
    local digest = redis.call('HGET', burns, 'changed:' .. digits(rev))
    if not digest then
      return nil
    end
    if not seen[digest] then
      seen[digest], out[#out + 1] = true, digest
    end
  end
  return out
end

-- Every call of one record: those that a gate minted.
local function all_calls(mints)
  local out = {}
  for _, field in ipairs(redis.call('HKEYS', mints)) do
    out[#out + 1] = string.match(field, '^(%x+):head$')
  end
  return out
end

-- What is known of some calls of one record, with at most `room` bytes of facts. A server's word on a call counts only for a mint that a gate
-- wrote: the last, or the one that ran before it (`ran`). What is unreadable is not there.
local outcomes = {done = true, failed = true, not_run = true, unknown = true}
local function read_calls(burns, digests, room, out)
  local mints = beside(burns)
  for _, digest in ipairs(digests) do
    local minted = redis.call('HMGET', mints, digest .. ':head', digest .. ':mint', digest .. ':ran')
    local gen, jti, at = minting(minted[2])
    if minted[1] and gen then
      local said = redis.call('HMGET', burns, digest .. ':status', digest .. ':by', digest .. ':at', digest .. ':outcome')
      local redeemed = said[1] == 'redeemed' and (burns == mints or said[2] == jti or said[2] and said[2] == minted[3])
      local record = {digest, minted[1], gen, redeemed and 'redeemed' or 'minted', '', '', false}
      if redeemed then
        local size, told = redis.call('HSTRLEN', burns, digest .. ':facts'), count_of(said[3])
        room = room - size
        record[5] = told > 0 and digits(told) or at
        record[6] = outcomes[said[4]] and said[4] or ''
        record[7] = size > 0 and size <= 1048576 and room >= 0 and redis.call('HGET', burns, digest .. ':facts')
      end
      out[#out + 1] = record
    end
  end
end

-- One snapshot of a run and its calls (see ops.RunRecord): of the run what a decision needs, without the counts of its limits; of the calls
-- those that changed after revision `known`, if it is of this lineage, else all. Header and turns are left out where they are of that revision:
-- whatever changes them raises `rev`. `gen` and `alone` are what `lineage` returned.
local function snapshot(run, gen, alone, known)
  local names = {'rev', 'closed', 'turns', 'acts', 'form', 'audiences', 'stored', 'opened', 'header', 'turn:1'}
  local values, flat = redis.call('HMGET', run, unpack(names)), {}
  local rev, told, read_in = string.match(known, '^(%d+)%.([%d-]+)%.(%x+)$')
  local turns = math.min(tonumber(values[3]) or 1, 1000)
  if read_in == gen and tonumber(rev) < tonumber(values[8] or '0') then
    read_in = nil -- of a run that had this id before
  end
  if read_in == gen and rev == values[1] then
    names[9], names[10] = nil, nil
  elseif turns > 1 then
    for n = 2, turns do
      names[n + 9] = 'turn:' .. digits(n)
    end
    values = redis.call('HMGET', run, unpack(names))
  end
  for i, name in ipairs(names) do
    if values[i] then
      flat[#flat + 1], flat[#flat + 2] = name, values[i]
    end
  end
  if tonumber(values[7] or '0') > CALLS - ROOM then
    flat[#flat + 1], flat[#flat + 2] = 'full', '1'
  end
  -- who mints acts in it: of a run that lives on a store that keeps everything, whether it still stands alone
  local acts = values[4] or 'kept'
  if acts == 'kept' then
    acts = alone and 'alone' or 'replicated'
  elseif #acts == 40 then
    acts = acts == gen and 'any' or 'nobody'
  end
  local records = values[1] and records_of(run, values[5], values[6]) or {}
  if declare then
    local keys = {}
    for i, burns in ipairs(records) do
      keys[2 * i - 1], keys[2 * i] = burns, (beside(burns))
    end
    declare(keys)
  end
  local vector, changed = revisions(records), {}
  if read_in == gen then
    local before, now = string.gmatch(told, '%d+'), string.gmatch(vector, '%d+')
    for i, burns in ipairs(records) do
      changed[i] = changed and changed_since(burns, tonumber(before() or '0'), tonumber(now() or '0'))
      changed = changed[i] and changed
      if not changed then
        break
      end
    end
    changed = changed and not before() and changed
  else
    changed = false
  end
  local out, room = {}, math.floor(33554432 / #records)
  for i, burns in ipairs(records) do
    read_calls(burns, changed and changed[i] or all_calls((beside(burns))), room, out)
  end
  return gen, flat, vector, out, changed and 'since' or 'all', acts
end
