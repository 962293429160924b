-- KEYS list... | ARGV prefix part at id most run: a page of holds after the place `at`, `id`; and where the next begins, how many wait in
-- all, and how many of them come before this page.
-- `waiting`: KEYS are the list of what the reader asked for, those of their groups, and that of what asks themselves. `ended`: the same
-- lists, the newest first. `any`: one list, whatever the state. `old`: holds in no list, as earlier versions opened them, and the key whose
-- time says when the first in a list was opened: two weeks later there are no old ones (the longest time to answer is one, kept twice).
local now, part, at, after, most = now_ms(), ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local lists, entries, seen, more = {unpack(KEYS)}, {}, {}, ''

local function add(flat, after)
  for i = 1, #flat, 2 do
    local id, score = flat[i], tonumber(flat[i + 1])
    if not seen[id] and score > (after or -1) then
      seen[id] = true
      entries[#entries + 1] = {score, id}
    end
  end
end

local function add_after(key, score, id, count)
  if id ~= '' then
    for _, same in ipairs(redis.call('ZRANGEBYSCORE', key, digits(score), digits(score))) do
      if same > id then
        add({same, score})
      end
    end
  end
  add(redis.call('ZRANGEBYSCORE', key, '(' .. digits(score), '+inf', 'WITHSCORES', 'LIMIT', 0, count))
end

if part == 'waiting' then
  local own = table.remove(lists, 1)
  local union = {#lists}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', own, '(' .. digits(now), '+inf')) do
    seen[id] = true -- nobody answers for their own call
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', lists[#lists], '(' .. digits(now), '+inf')) do
    seen[id] = nil -- unless it is they who are asked
  end
  for _, each in ipairs({lists, {'AGGREGATE', 'MAX', 'WITHSCORES'}}) do
    for _, word in ipairs(each) do
      union[#union + 1] = word
    end
  end
  add(redis.call('ZUNION', unpack(union)), now) -- sorted by the server: thousands in many lists would keep it busy here
elseif part == 'ended' then
  for _, key in ipairs(lists) do
    add(redis.call('ZREVRANGEBYSCORE', key, digits(now), '-inf', 'WITHSCORES', 'LIMIT', 0, most))
  end
elseif part == 'any' or now < tonumber(redis.call('GET', lists[2]) or now) + 1209600000 then
  add_after(lists[1], at, after, most + 1)
end
if part ~= 'waiting' then
  table.sort(entries, function(one, other)
    local earlier = one[1] < other[1] or one[1] == other[1] and one[2] < other[2]
    return earlier == (part ~= 'ended') and one[2] ~= other[2]
  end)
end

local out, looked, size, before, last = {}, 0, 0, 0, nil
local total = #entries
local function is_before(score, id)
  return part == 'waiting' and (score < at or score == at and id <= after)
end

if declare then
  local holds = {}
  for _, entry in ipairs(entries) do
    if #holds <= most and not is_before(entry[1], entry[2]) then
      holds[#holds + 1] = ARGV[1] .. entry[2]
    end
  end
  declare_holds(holds)
end
for _, entry in ipairs(entries) do
  local score, id = entry[1], entry[2]
  if is_before(score, id) then
    before = before + 1
  else
    local key = ARGV[1] .. id
    local hold = read_hold(key)
    size = size + #(hold[2] or '')
    if looked == most or (size > 8388608 and looked > 0) then
      more = last
      break
    end
    looked, last = looked + 1, digits(score) .. '.' .. id
    if part == 'waiting' and hold[1] ~= 'pending' then -- answered by an earlier version, or lost
      total = total - 1
      for _, each in ipairs(KEYS) do
        redis.call('ZADD', each, 'XX', digits(now), id)
      end
    elseif hold[1] and (part ~= 'old' or (ARGV[6] == '' or string.match(hold[6], '[^:]+$') == ARGV[6]) and redis.call('HEXISTS', key, 'lists') == 0) then
      out[#out + 1] = {hold[1], hold[2], hold[3], hold[4], last}
    end
  end
end
return {KEYS[1], out, more, digits(total), digits(before)}
