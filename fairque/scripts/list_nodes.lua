-- list_nodes: a page of a workflow's tasks, each behind those that it waits for
-- KEYS  clock
-- ARGV  prefix settings id start
-- FLAGS no-writes
-- INCLUDE prelude keys record
-- REPLY where the next page starts (-1: this was the last), then for each: its id, the head of its record or nothing, and the
-- ids that it waits for
local PAGE, NAMES = 200, 10000
local first = tonumber(start)
local ids = call('LRANGE', keys.nodes(id), first, first + PAGE - 1)
local reply, names = {-1}, 0
for i, node in ipairs(ids) do
  local data = call('GETRANGE', keys.task(node), 0, HEAD_AND_NAMES - 1)
  local others = call('HKEYS', keys.upstream(node))
  names = names + #others
  reply[#reply + 1] = node
  reply[#reply + 1] = data ~= '' and data
  reply[#reply + 1] = others
  if i == PAGE or names >= NAMES then
    reply[1] = first + i
    break
  end
end
return reply
