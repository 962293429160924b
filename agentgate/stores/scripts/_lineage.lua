-- The identity of this server's history: new after every restart, promotion and demotion. INFO is called plainly: a user
-- without the right must get an error, not a weaker fence. A lineage kept as a key would be replicated and prove nothing.
local function lineage()
  local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  if not id or #id ~= 40 then
    error('no lineage: INFO replication shows no master_replid of 40 hex characters')
  end
  return id
end
