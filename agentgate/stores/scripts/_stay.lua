-- On a shard of a cluster a lineage is of a tenant's stay there: new after whatever changes that of the server, and after every move. The
-- field `home` of its history says "lineage shard since_ms stay". A tenant that comes back finds another one, since its tokens of before may
-- have been burned elsewhere. Where it moved here, `moved` counts that; moved in any way but as a whole it counts as lost: a key may have
-- been left behind. A tool server may not write this, and nothing that it could burn was minted in a stay that has not begun.
local server_lineage = lineage

-- Whether this server took in the slot of a key as a whole (CLUSTER MIGRATESLOTS, CLUSTER MIGRATION IMPORT) since then (ms, by another
-- server's clock). One that counted already says nothing of a later move: the field `came` names the last eight.
local function came_whole(key, since)
  local slot, counted = redis.call('CLUSTER', 'KEYSLOT', key), redis.call('HGET', key, 'came') or ''
  local jobs = redis.pcall('CLUSTER', 'GETSLOTMIGRATIONS')
  if jobs.err then
    jobs = redis.pcall('CLUSTER', 'MIGRATION', 'STATUS', 'ALL')
  end
  for _, job in ipairs(jobs.err and {} or jobs) do
    local told = {}
    for i = 1, #job, 2 do
      told[job[i]] = job[i + 1]
    end
    local ended = tonumber(told.last_update_time and told.last_update_time * 1000 or told.end_time or 0) or 0
    local name, done = told.name or told.id or '', told.state == 'success' or told.state == 'completed'
    if done and not string.find(counted, name, 1, true) and string.lower(told.operation or '') == 'import' and ended + 2000 >= since then
      for first, last in string.gmatch(told.slot_ranges or told.slots or '', '(%d+)%-(%d+)') do
        if tonumber(first) <= slot and slot <= tonumber(last) then
          redis.call('HSET', key, 'came', string.sub(name .. ' ' .. counted, 1, 8 * (#name + 1)))
          return true
        end
      end
    end
  end
  return false
end

local function begin_stay(key, id, home)
  histories_beside(key)
  local time, shard = redis.call('TIME'), redis.call('CLUSTER', 'MYSHARDID')
  local before, since = string.match(home, '^%x+ (%S+) (%d+)')
  local stay = redis.sha1hex(id .. time[1] .. '.' .. time[2])
  redis.call('HSET', key, 'home', id .. ' ' .. shard .. ' ' .. time[1] .. '000 ' .. stay)
  if before and before ~= shard then
    redis.call('HINCRBY', key, 'moved', 1)
    if not came_whole(key, tonumber(since)) then
      local kept = redis.call('HMGET', key, 'epoch', 'count', 'lost')
      mark_lost(key, kept[3] or kept[1] and kept[1] .. ' ' .. kept[2] or new_epoch(id) .. ' 0')
    end
  end
  return stay
end

local function lineage()
  local id, alone = server_lineage()
  local start = KEYS[1] and string.match(KEYS[1], '^ag:{[^}]*}:')
  if not start then
    return id, alone
  end
  local key = start .. 'history'
  if declare then
    declare({key})
  end
  local home = redis.call('HGET', key, 'home') or ''
  if string.sub(home, 1, 40) == id then
    return string.sub(home, -40), alone
  elseif redis.acl_check_cmd('HSET', key, 'home', '') then
    return begin_stay(key, id, home), alone
  end
  return string.rep('0', 40), alone
end
