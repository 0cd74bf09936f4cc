-- INCLUDE prelude keys states record clock tasks upstream deps workflows graph actions
-- EXPORTS continue
-- Goes on with what was too much for the calls before. An entry's first letter says what it is:
-- e  a task has ended (how, its id): those that wait for it are told
-- s  a workflow was committed: its nodes come out of the stage
-- x  a workflow is to be canceled: its nodes are, those before whom nothing waits at last
-- k  a workflow has ended: its nodes are kept for their time
-- p  a workflow that had ended runs again: its nodes are kept until it ends
local PAGE = 100
local LATE = 100
local CHECKED = 3
local continue = {}

-- The next nodes of a workflow, from the last to the first. Returns whether these were all.
local function each_node(workflow, cursor, visit)
  local key, list = keys.workflow(workflow), keys.nodes(workflow)
  local at = tonumber(call('HGET', key, cursor) or 0)
  while deps.left() > 0 do
    local ids = call('LRANGE', list, -at - PAGE, -at - 1)
    for i = #ids, 1, -1 do
      local rec = record.load(ids[i])
      if rec then visit(ids[i], rec) end
    end
    at = at + #ids
    deps.spend(#ids)
    if tasks.ended then deps.resolve() end
    if #ids < PAGE then
      call('HDEL', key, cursor)
      return true
    end
  end
  call('HSET', key, cursor, at)
  return false
end

local function keep(id, rec)
  if rec.state ~= FINISHED and rec.state ~= CANCELED then return end
  local meta = upstream.meta(id)
  local ttl = meta and meta.ttl >= 0 and meta.ttl or 0
  deps.expire(id, math.max(ttl, workflows.ttl()))
end

local GOING = {
  e = function(rest) return deps.wake(string.sub(rest, 2), string.sub(rest, 1, 1)) end,
  s = graph.unpack,
  x = function(workflow)
    if call('EXISTS', keys.workflow(workflow)) == 0 then return true end
    return each_node(workflow, 'canceling', actions.cancel)
  end,
  k = function(workflow)
    local state = call('HGET', keys.workflow(workflow), 'state')
    if not state or state == 'running' then return true end
    return each_node(workflow, 'keeping', keep)
  end,
  p = function(workflow)
    if call('HGET', keys.workflow(workflow), 'state') ~= 'running' then return true end
    return each_node(workflow, 'persisting', function(id) deps.expire(id, nil) end)
  end,
}

function continue.go_on()
  if tasks.ended then deps.resolve() end
  while deps.left() > 0 do
    local entry = call('LINDEX', keys.continued, 0)
    if not entry then
      clock.continuing = 0
      return
    end
    local whole = GOING[string.sub(entry, 1, 1)](string.sub(entry, 2))
    -- What follows from it was recorded behind it.
    if tasks.ended then deps.resolve() end
    deps.spend(1)
    if whole then
      call('LPOP', keys.continued)
      clock.continuing = math.max(0, clock.continuing - 1)
    end
  end
end

-- What time alone brings.
function continue.sweep()
  deps.give_up_missing(LATE)
  deps.check(CHECKED)
  workflows.forget()
end
