-- KEYS marks | ARGV count, then name and number for each: a mark only ever rises; returns each
local out = {}
for i = 1, tonumber(ARGV[1]) do
  local name, given = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  local kept = tonumber(redis.call('HGET', KEYS[1], name) or '0')
  if kept == nil then
    return redis.error_reply('mark is no number')
  end
  if given > kept then
    redis.call('HSET', KEYS[1], name, digits(given))
    kept = given
  end
  out[i] = digits(kept)
end
return {KEYS[1], out}
