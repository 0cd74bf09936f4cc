-- push_graph: new -> queued | scheduled | deferred: tasks that wait for others
-- KEYS  clock
-- ARGV  prefix settings workflow name output op items...
-- FLAGS
-- INCLUDE prelude keys record clock tenants scheduler tasks store writes wake upstream links workflows graph finish_call
-- `workflow`: an id: then all tasks are its nodes, and are stored all or none, or '' for single tasks, each with its own outcome.
-- `output`: what the workflow gives, encoded. `op`: of this call. Items (lib/graph.lua) stand behind those that they wait for.
-- REPLY for each item: code, detail, as push does; 5 refused: a dependency is not known (its id); 6 refused: a cycle (the ids
-- in it, between colons); 7 refused: too many dependencies to look at; 8 kept out, because another one was refused; 9 refused:
-- there is such a workflow.
local reply, nodes, inside, named, more = {}, {}, {}, {}, {}
local refused = false
local whole = workflow ~= ''

for i = ITEMS, #ARGV do
  local node = graph.read(ARGV[i])
  node.workflow = workflow
  nodes[#nodes + 1] = node
  for _, other in ipairs(node.others) do named[other] = true end
end

if whole then
  local known = call('HGET', keys.workflow(workflow), 'op')
  if known or call('EXISTS', keys.stage(workflow)) == 1 then
    local code = known == op and 1 or 9
    for i, node in ipairs(nodes) do reply[2 * i - 1], reply[2 * i] = code, code == 1 and node.id or workflow end
    return reply
  end
end

-- Whether some task waits for one that has not come yet, also one of these for one behind it.
local awaited, wanted = call('EXISTS', keys.missing) == 1, {}
for i, node in ipairs(nodes) do
  local code, detail
  if inside[node.id] then code, detail = 0, node.id end
  if not code then code, detail = store.existing(node.id, node.rec, node.on_duplicate, node.window) end
  if not code then code, detail = store.refusal(node.rec, more) end
  if not code then
    local unknown
    node.action, unknown = links.look(node, inside)
    if unknown and node.await == 0 then code, detail = 5, unknown end
    if not code and awaited then
      local cycle = links.cycle(node.id, node.others, inside, wanted)
      if cycle == true then
        code, detail = 7, node.id
      elseif cycle then
        code, detail = 6, node.id .. ':' .. table.concat(cycle, ':')
      end
    end
  end
  if code then
    node.action = nil
    refused = refused or code == 0 or code > 2 or whole
  else
    inside[node.id] = node
    if node.meta.missing > 0 then
      awaited = true
      for at, other in ipairs(node.others) do
        if node.outcomes[at] == MISSING then wanted[other] = true end
      end
    end
    local one = tenants.get(node.rec.user)
    while one do
      more[one] = (more[one] or 0) + 1
      one = one.group
    end
  end
  reply[2 * i - 1], reply[2 * i] = code or 1, code and detail or node.id
end

if refused and whole then
  for i, node in ipairs(nodes) do
    if node.action then reply[2 * i - 1] = 8 end
  end
  if tenants.changed then finish_call() end
  return reply
end

local waits, never, earliest, ids = {}, {}, nil, {}
local began = false
for _, node in ipairs(nodes) do
  if node.action then
    if not began then
      scheduler.advance()
      began = true
      if whole then workflows.create(workflow, name, output, op, #nodes) end
    end
    if named[node.id] then record.mark(node.rec, LINKED) end
    if awaited then links.appeared(node.id, node.rec) end
    local due = graph.put(node, node.action, inside, waits)
    if due and (not earliest or due < earliest) then earliest = due end
    if node.action == NEVER then never[#never + 1] = node end
    ids[#ids + 1] = node.id
  end
end
if began then
  writes.flush()
  links.write_waits(waits)
  if whole then
    for i = 1, #ids, 4000 do call('RPUSH', keys.nodes(workflow), unpack(ids, i, math.min(i + 3999, #ids))) end
  end
  for _, node in ipairs(never) do links.end_at_once(node.id, node) end
  wake.one_if_ready()
  if earliest and (clock.timer == 0 or earliest < clock.timer or clock.timer < clock.now) then
    clock.timer = 0
    wake.one()
  end
end
if began or tenants.changed then finish_call() end
return reply
