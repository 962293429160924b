-- ARGV tenant key...: what this store user may do with each key ('r' to read, 'w' to write it), the server's clock (ms), and when a gate first
-- opened a run of the tenant in which each tool server's records have keys of their own (see open_run.lua); empty: it may not ask, or never
local out, own = {}, ''
for i = 2, #ARGV do
  local key, may = ARGV[i], {r = '', w = ''}
  for _, try in ipairs({{'r', 'HGET', key, 'x'}, {'r', 'HMGET', key, 'x'}, {'r', 'HGETALL', key}, {'r', 'GET', key}, {'r', 'MGET', key},
    {'w', 'HSET', key, 'x', 'x'}, {'w', 'SET', key, 'x'}, {'w', 'GETDEL', key}, {'w', 'DEL', key}}) do
    may[try[1]] = redis.acl_check_cmd(unpack(try, 2)) and try[1] or may[try[1]]
  end
  out[i - 1] = may.r .. may.w
end
local history = 'ag:{' .. ARGV[1] .. '}:history'
if redis.acl_check_cmd('HGET', history, 'owned') then
  own = redis.call('HGET', history, 'owned') or ''
end
return {ARGV[1], out, digits(now_ms()), own}
