-- KEYS burns: a server's calls in one run that were redeemed and of whose outcome nobody knows: digest, jti, when (ms), head
local mints, out = beside(KEYS[1]), {}
if declare then
  declare({mints})
end
for _, name in ipairs(redis.call('HKEYS', mints)) do
  local digest = string.match(name, '^(%x+):mint$')
  local said = digest and redis.call('HMGET', KEYS[1], digest .. ':status', digest .. ':outcome', digest .. ':by', digest .. ':at') or {}
  if said[1] == 'redeemed' and (not said[2] or said[2] == '' or said[2] == 'unknown') then
    out[#out + 1] = {digest, said[3] or '', digits(count_of(said[4])), redis.call('HGET', mints, digest .. ':head') or ''}
  end
end
return {KEYS[1], out}
