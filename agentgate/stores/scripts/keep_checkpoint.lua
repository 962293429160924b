-- KEYS checkpoints | ARGV origin size note: the newest checkpoint of a log, replaced only by one of a larger tree; returns the one there is
local kept = redis.call('HGET', KEYS[1], ARGV[1])
local size = kept and tonumber(string.match(kept, '^(%d+)\n') or '')
if not size or tonumber(ARGV[2]) > size then
  kept = ARGV[2] .. '\n' .. ARGV[3]
  redis.call('HSET', KEYS[1], ARGV[1], kept)
end
return {KEYS[1], kept}
