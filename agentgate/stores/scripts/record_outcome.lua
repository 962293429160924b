-- KEYS burns [run] | ARGV digest outcome jti attempt facts: once, only from the redemption by this token; `unknown` may become known
-- Whoever does not know whether its own attempt burned the token names it: another's, which burned it, may be running the tool.
-- Of a `run` it returns what its revision was, and is, without the lineage.
local digest, outcome = ARGV[1], ARGV[2]
local call = redis.call('HMGET', KEYS[1], digest .. ':status', digest .. ':outcome', digest .. ':by', 'rev', digest .. ':attempt',
  digest .. ':facts', digest .. ':remember')
if call[1] ~= 'redeemed' or call[3] ~= ARGV[3] or (ARGV[4] ~= '' and call[5] ~= ARGV[4]) then
  return {KEYS[1], 'not_redeemed', '', ''}
end
if call[2] and call[2] ~= '' and (call[2] ~= 'unknown' or outcome == 'unknown') then
  return {KEYS[1], 'already_recorded', '', ''}
end
local fields, facts = {digest .. ':outcome', outcome}, ARGV[5] ~= '' and not call[6]
if facts then
  fields[3], fields[4] = digest .. ':facts', ARGV[5]
end
local rev = call[4] or '0'
if facts or outcome == 'failed' or outcome == 'not_run' then -- these are no earlier calls any more: readers must see it
  rev = digits(tonumber(rev) + 1)
  fields[#fields + 1], fields[#fields + 2] = 'rev', rev
  fields[#fields + 1], fields[#fields + 2] = 'changed:' .. rev, digest
end
-- keys that only the data name come first: where one is not here, nothing is written
local run, old, new = KEYS[2] and redis.call('HMGET', KEYS[2], 'rev', 'form', 'audiences'), '', ''
if run and run[1] then
  local records = records_of(KEYS[2], run[2], run[3])
  old, new = run[1] .. '.' .. revisions(records, KEYS[1], call[4]), run[1] .. '.' .. revisions(records, KEYS[1], rev)
end
if call[7] and outcome == 'done' then -- what its user's yes named is remembered from now on
  redis.call('HSET', (string.gsub(KEYS[1], '[^:]*$', 'done:' .. digest, 1)), 'done', '1')
end
redis.call('HSET', KEYS[1], unpack(fields))
return {KEYS[1], 'ok', old, new}
