-- INCLUDE prelude keys states record clock tenants scheduler tasks writes store later deps links workflows
-- EXPORTS graph
-- Tasks that come in with what they wait for.
local graph = {}

-- An item as queue/operations/push.py packs it: fields, then the record. `near`: how many of `others` belong to the same graph; they stand first.
function graph.read(item)
  local at, fields = cmsgpack.unpack_one(item, 0)
  return {rec = record.parse(string.sub(item, at + 1)), id = fields[1], due = fields[2], on_duplicate = fields[3],
    window = fields[4], rule = fields[5], await = fields[6], ttl = fields[7], near = fields[8], others = fields[9],
    workflow = ''}
end

-- One whose `meta` is known (links.look). `waits`: see links.write. Returns when it is due, if that is later.
function graph.put(node, action, inside, waits)
  local id, rec = node.id, node.rec
  local waiting = action ~= RUN
  if node.workflow ~= '' or #node.others > 0 then record.mark(rec, LINKED) end
  if node.workflow ~= '' or #node.others > 0 then links.write(id, node, inside, waits) end
  local due = store.put(id, rec, node.due, node.window, waiting)
  clock.pushed = clock.pushed + 1
  return due
end

-- The next nodes of a workflow that was staged: those that others wait for come behind these. Returns whether all are in.
function graph.unpack(workflow)
  local stage = keys.stage(workflow)
  while deps.left() > 0 do
    local items = call('LPOP', stage, math.min(50, deps.left()))
    if not items or not items[1] then return true end
    local nodes, waits, never = {}, {}, {}
    for _, item in ipairs(items) do
      local node = graph.read(item)
      node.workflow = workflow
      deps.spend(1 + math.floor(#node.others / 4))
      local code, detail = store.existing(node.id, node.rec, node.on_duplicate, node.window)
      if code == 1 and detail == node.id then
        -- It is in.
      elseif code then
        -- Somebody else took its id, or its key, meanwhile.
        workflows.node_ended(workflow, FAILED)
        later.add('ef' .. node.id)
      else
        nodes[#nodes + 1] = node.id
        local inside = {}
        for i = 1, node.near do inside[node.others[i]] = true end
        links.appeared(node.id, node.rec)
        local action, unknown = links.look(node, inside)
        if unknown and node.await == 0 then action = links.without(node) end
        graph.put(node, action, inside, waits)
        if action == NEVER then never[#never + 1] = node end
      end
    end
    writes.flush()
    links.write_waits(waits)
    if nodes[1] then call('LPUSH', keys.nodes(workflow), unpack(nodes)) end
    for _, node in ipairs(never) do links.end_at_once(node.id, node) end
    if tasks.ended then deps.resolve() end
  end
  return call('EXISTS', stage) == 0
end
