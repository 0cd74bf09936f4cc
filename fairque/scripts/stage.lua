-- stage: tasks of a workflow that is too large for one call are kept, unseen, until all are there
-- KEYS  clock
-- ARGV  prefix settings workflow start ttl items...
-- FLAGS
-- INCLUDE prelude keys record clock tenants store graph
-- `start`: how many were staged before; `ttl` in ms: for how long the stage stays without more. Items: see push_graph; each
-- before those that it waits for.
-- REPLY code, detail for the first that is refused, as push_graph does; nothing if none is
local stage = keys.stage(workflow)
if call('EXISTS', keys.workflow(workflow)) == 1 then return {9, workflow} end
local there = call('LLEN', stage)
local count = #ARGV - ITEMS + 1
if there == tonumber(start) + count then return {} end
if there ~= tonumber(start) then return {9, workflow} end
for i = ITEMS, #ARGV do
  local node = graph.read(ARGV[i])
  local code, detail = store.existing(node.id, node.rec, node.on_duplicate, node.window)
  if not code then code, detail = store.refusal(node.rec) end
  for at = node.near + 1, #node.others do
    if not code and node.await == 0 and call('EXISTS', keys.task(node.others[at])) == 0 then
      code, detail = 5, node.others[at]
    end
  end
  if code then return {code, detail, i - ITEMS} end
end
for i = ITEMS, #ARGV, 500 do
  call('RPUSH', stage, unpack(ARGV, i, math.min(i + 499, #ARGV)))
end
call('PEXPIRE', stage, ttl)
return {}
