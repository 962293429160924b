-- KEYS run conversation revoked... | ARGV header revision life_ms takes_back turn...: the run of a conversation begins anew, with these turns, where it
-- is open and as it was read. What is counted in it, its calls, holds and what was taken back stand; so does when it was opened, for revocations.
local shut = shut_run(KEYS[1])
if shut then
  return {KEYS[1], shut}
end
local known = redis.call('HMGET', KEYS[1], 'rev', 'opened', 'turns')
if known[1] ~= string.match(ARGV[2], '^(%d+)%.') then
  return {KEYS[1], 'stale'}
elseif revoked({unpack(KEYS, 3)}, tonumber(known[2])) then
  return {KEYS[1], 'revoked'}
end
local calls, waits = keys_of_calls(KEYS[1]), ARGV[4] == '1' and what_waits(KEYS[1])

-- No decision rests on a read of before any more, unless a call waits for a person: it is judged by all that the conversation did. A read
-- whose token may still come stays, and one that has no outcome yet. Acts stay. Returns the reads that go, each with the keys that it is
-- under, and how many calls stay.
local function find_old_reads(run)
  local start, id = string.match(run, '^(ag:{[^}]*}:)run:(.+)$')
  local form, open, holds, tokens = redis.call('HMGET', run, 'form', 'audiences'), start .. 'open:' .. id, {}, {}
  if declare then
    declare({open})
  end
  for i, hold in ipairs(redis.call('SMEMBERS', open)) do
    holds[i] = start .. 'hold:' .. hold
  end
  if declare then
    declare_holds(holds)
  end
  local waits, minted = false, {}
  for _, hold in ipairs(holds) do
    local state = read_hold(hold)[1]
    waits = waits or state == 'pending' or state == 'released'
  end
  for _, burns in ipairs(records_of(run, form[1], form[2])) do
    local mints = beside(burns)
    for _, digest in ipairs(all_calls(mints)) do
      local head, mint = unpack(redis.call('HMGET', mints, digest .. ':head', digest .. ':mint'))
      local _, jti = minting(mint)
      local token = jti and start .. 'token:' .. string.sub(burns, #start + 7, #start + 71) .. jti
      minted[#minted + 1], tokens[#tokens + 1] = {mints, burns, digest, head, token}, token
    end
  end
  if declare then
    declare(tokens)
  end
  local drops = {}
  for _, each in ipairs(minted) do
    local status, outcome = unpack(redis.call('HMGET', each[2], each[3] .. ':status', each[3] .. ':outcome'))
    local over = status and (outcome or '') ~= '' or not status and each[5] and redis.call('EXISTS', each[5]) == 0
    if form[1] and over and not waits and cjson.decode(each[4]).read then
      drops[#drops + 1] = each
    end
  end
  return drops, #minted - #drops
end

local drops, stored = find_old_reads(KEYS[1])
for _, each in ipairs(drops) do
  local mints, burns, digest = unpack(each)
  redis.call('HDEL', mints, digest .. ':head', digest .. ':mint', digest .. ':ran', digest .. ':free')
  redis.call('HDEL', burns, digest .. ':status', digest .. ':by', digest .. ':attempt', digest .. ':runs', digest .. ':at',
    digest .. ':outcome', digest .. ':facts', digest .. ':remember')
end
for n = 1, tonumber(known[3]) do
  redis.call('HDEL', KEYS[1], 'turn:' .. digits(n))
end
for n = 5, #ARGV do
  redis.call('HSET', KEYS[1], 'turn:' .. digits(n - 4), ARGV[n])
end
redis.call('HSET', KEYS[1], 'header', ARGV[1], 'turns', digits(#ARGV - 4), 'stored', digits(stored))
redis.call('HINCRBY', KEYS[1], 'rev', 1)
redis.call('SET', KEYS[2], digits(now_ms()), 'PX', digits(math.floor(12.2 * tonumber(ARGV[3]))))
keep_run(KEYS[1], calls, now_ms() + tonumber(ARGV[3]))
if waits then
  take_back(KEYS[1], waits)
end
return {KEYS[1], 'ok'}
