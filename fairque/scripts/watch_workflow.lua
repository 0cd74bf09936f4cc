-- watch_workflow: a client wants to hear of a workflow's end
-- KEYS  clock
-- ARGV  prefix settings id client ttl
-- FLAGS allow-oom
-- INCLUDE prelude keys
-- `ttl` in ms: for how long without renewal.
-- REPLY its state, or nothing if there is no such workflow
local state = call('HGET', keys.workflow(id), 'state')
if not state then return false end
local watchers = keys.watchers(':' .. id)
call('SADD', watchers, client)
call('PEXPIRE', watchers, ttl)
return state
