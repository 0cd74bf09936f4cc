-- list_workflows: a page of workflows: those that run, the newest first, then those that have ended
-- KEYS  clock
-- ARGV  prefix settings start count
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY for each: its id, then fields and values
local reply = {}
for _, id in ipairs(call('ZREVRANGE', keys.workflows, start, start + count - 1)) do
  reply[#reply + 1] = id
  reply[#reply + 1] = call('HGETALL', keys.workflow(id))
end
return reply
