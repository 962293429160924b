-- KEYS checkpoints of gates, of each tool server | ARGV id of each of these: copies what is newer there, of a hundred logs at most; returns all
for i = 2, #KEYS do
  local theirs = redis.call('HLEN', KEYS[i]) <= 100 and redis.call('HGETALL', KEYS[i]) or {}
  for at = 1, #theirs, 2 do
    local name, given = ARGV[i - 1] .. ' ' .. theirs[at], tonumber(string.match(theirs[at + 1], '^(%d+)\n') or '')
    local kept = redis.call('HGET', KEYS[1], name)
    if given and #theirs[at + 1] <= 4096 and (not kept or given > tonumber(string.match(kept, '^(%d+)\n'))) then
      redis.call('HSET', KEYS[1], name, theirs[at + 1])
    end
  end
end
return {KEYS[1], redis.call('HVALS', KEYS[1])}
