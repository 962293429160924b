-- The identity of this server's data history: new after every restart, promotion and demotion, and when a first replica connects. INFO is
-- called unprotected: a user who may not call it must get an error, not a weaker fence. A lineage stored as a key would be replicated and
-- prove nothing. Also whether the server is alone: no replica has followed it lately, and it was none itself.
local function lineage()
  local text = redis.call('INFO', 'replication')
  if not string.find(text, '\nrole:master\r\n', 1, true) then
    error('not the primary: INFO replication shows no role:master') -- a replica may be writable
  end
  local _, before = string.find(text, '\nmaster_replid:', 1, true)
  local id = before and string.sub(text, before + 1, before + 42)
  if not id or #id ~= 42 or not string.find(id, '^%x+\r\n$') then
    error('no lineage: INFO replication shows no master_replid of 40 hex characters')
  end
  return string.sub(id, 1, 40), string.find(text, '\nrepl_backlog_active:0\r\n', 1, true) ~= nil
end
