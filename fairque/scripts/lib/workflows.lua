-- INCLUDE prelude keys states clock wake later
-- EXPORTS workflows
-- A workflow counts its nodes: a hash with `name`, `op`, `output`, `created`, `total`, `left` (nodes that have not ended),
-- how many finished, failed and were canceled, `state`, `ended`, and `cancel` if that was asked for.
local RUNNING = 4000000000000000
local SHORTEST = 3600000
local workflows = {}

-- What is read after the end, in ms: an hour at least.
function workflows.ttl()
  return math.max(conf.result_ttl, SHORTEST)
end

function workflows.create(id, name, output, op, total)
  local at = string.format('%.17g', clock.now)
  call('HSET', keys.workflow(id), 'name', name, 'output', output, 'op', op, 'created', at, 'total', total, 'left', total,
    'finished', 0, 'failed', 0, 'canceled', 0, 'state', 'running')
  -- Those that run stand behind all that have ended, which stand there by when they are forgotten.
  call('ZADD', keys.workflows, string.format('%.17g', RUNNING + clock.now), id)
end

local function close(id)
  local key = keys.workflow(id)
  local counts = call('HMGET', key, 'failed', 'cancel')
  local state = counts[1] ~= '0' and 'failed' or counts[2] and 'canceled' or 'finished'
  call('HSET', key, 'state', state, 'ended', string.format('%.17g', clock.now))
  local ttl = workflows.ttl()
  call('PEXPIRE', key, ttl)
  call('PEXPIRE', keys.nodes(id), ttl)
  call('ZADD', keys.workflows, string.format('%.17g', clock.now + ttl * 1000), id)
  later.add('k' .. id)
  wake.watchers(':' .. id, 's:' .. id .. '\n' .. string.char(FINISHED, 0, 0, 0))
end

-- It has more nodes than before.
function workflows.add(id, nodes)
  local key = keys.workflow(id)
  if call('EXISTS', key) == 0 then return end
  call('HINCRBY', key, 'total', #nodes)
  call('HINCRBY', key, 'left', #nodes)
  call('RPUSH', keys.nodes(id), unpack(nodes))
end

-- One of its nodes has ended. Whether there is such a workflow.
function workflows.node_ended(id, state)
  local key = keys.workflow(id)
  local left = call('HINCRBY', key, 'left', -1)
  if left < 0 then
    call('UNLINK', key)
    return false
  end
  call('HINCRBY', key, STATE_NAMES[state], 1)
  if left == 0 then close(id) end
  return true
end

-- One of its nodes, which had ended so, begins anew.
function workflows.node_again(id, state)
  local key = keys.workflow(id)
  if call('EXISTS', key) == 0 then return end
  call('HINCRBY', key, STATE_NAMES[state], -1)
  if call('HINCRBY', key, 'left', 1) == 1 then
    call('HSET', key, 'state', 'running')
    call('HDEL', key, 'ended', 'cancel', 'keeping', 'persisting')
    call('PERSIST', key)
    call('PERSIST', keys.nodes(id))
    call('ZADD', keys.workflows, string.format('%.17g', RUNNING + clock.now), id)
    later.add('p' .. id)
  end
end

-- Those that ended so long ago that nothing of them is left.
function workflows.forget()
  call('ZREMRANGEBYSCORE', keys.workflows, '-inf', clock.now)
end
