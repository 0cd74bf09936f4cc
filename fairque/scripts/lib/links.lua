-- INCLUDE prelude keys states record clock tasks triggers workflows upstream deps
-- EXPORTS links
-- How tasks come to wait for others: as they are pushed, as they begin anew, and for those that they have made.
local VISITS = 1000
local AWAITED = 1000
local links = {}

-- `node`: rule, due, ttl, workflow (or ''), await (µs, 0: not at all), others. `inside`: ids that come in with the same call,
-- `waits`: who waits for each, filled in here and written by links.write. Returns what becomes of it, and the others that
-- are not there.
function links.look(node, inside)
  local meta = {rule = node.rule, succeeded = 0, failed = 0, canceled = 0, pending = 0, missing = 0, due = node.due,
    ttl = node.ttl, children = 0, workflow = node.workflow}
  local outcomes, unknown = {}, nil
  for i, other in ipairs(node.others) do
    local outcome = PENDING
    if not inside[other] then
      local rec = record.load(other)
      if rec then
        outcome = upstream.OUTCOMES[rec.state] or PENDING
      else
        outcome = MISSING
        unknown = unknown or other
      end
    end
    outcomes[i] = outcome
    upstream.count(meta, outcome, 1)
  end
  node.meta, node.outcomes = meta, outcomes
  return upstream.decide(meta), unknown
end

-- As links.look, for one whose others are not there and will not come.
function links.without(node)
  for i, other in ipairs(node.others) do
    if node.outcomes[i] == MISSING then
      upstream.count(node.meta, MISSING, -1)
      upstream.count(node.meta, VANISHED, 1)
      node.outcomes[i] = VANISHED
      node.gone = other
    end
  end
  return NEVER
end

-- Before the records of those that it waits for are written, unless these come in with the same call.
function links.write(id, node, inside, waits)
  local list = {'', upstream.packed(node.meta)}
  for i, other in ipairs(node.others) do
    local outcome = node.outcomes[i]
    list[#list + 1] = other
    list[#list + 1] = outcome
    if outcome == MISSING then
      -- Should it never come, nothing stays.
      local key, ms = keys.downstream(other), math.ceil(node.await / 1000) + SHORTEST_LIFE
      call('SADD', key, id)
      if call('PTTL', key) < ms then call('PEXPIRE', key, ms) end
    elseif outcome == PENDING then
      if not inside[other] then
        local rec = record.load(other)
        if not record.has(rec, LINKED) then
          record.mark(rec, LINKED)
          record.save(other, rec)
        end
      end
      local ids = waits[other]
      if not ids then
        ids = {}
        waits[other] = ids
      end
      ids[#ids + 1] = id
    end
  end
  upstream.write(keys.upstream(id), list)
  if node.meta.missing > 0 then
    call('ZADD', keys.missing, string.format('%.17g', clock.now + node.await), id)
  end
end

function links.write_waits(waits)
  for other, ids in pairs(waits) do
    for i = 1, #ids, ARGUMENTS do
      call('SADD', keys.downstream(other), unpack(ids, i, math.min(i + ARGUMENTS - 1, #ids)))
    end
  end
end

-- It never runs: the call that stored it has just said so.
function links.end_at_once(id, node)
  local rec = record.load(id)
  if node.gone then return deps.end_without_running(id, rec, FAILED, UPSTREAM_GONE, node.gone) end
  local _, state, reason = upstream.decide(node.meta)
  local which = '-'
  for i, other in ipairs(node.others) do
    if node.outcomes[i] == (reason == UPSTREAM_CANCELED and 'c' or 'f') then which = other end
  end
  deps.end_without_running(id, rec, state, reason, which)
end

-- A task comes in that somebody waits for already: then it is marked. Those that waited for it to appear do so no more.
function links.appeared(id, rec)
  local ids = call('SRANDMEMBER', keys.downstream(id), AWAITED)
  if not ids[1] then return end
  record.mark(rec, LINKED)
  call('PERSIST', keys.downstream(id))
  for _, waiting in ipairs(ids) do
    local key = keys.upstream(waiting)
    local found = call('HMGET', key, '', id)
    if found[1] and found[2] == MISSING then
      local meta = upstream.parse(found[1])
      meta.missing = meta.missing - 1
      call('HSET', key, '', upstream.packed(meta), id, PENDING)
      if meta.missing == 0 then call('ZREM', keys.missing, waiting) end
    end
  end
end

-- The tasks of a cycle that this one would close, from it on; or true: there are too many to look at. `wanted`: for whom
-- those `inside` wait without finding them.
function links.cycle(id, others, inside, wanted)
  if not wanted[id] and call('EXISTS', keys.downstream(id)) == 0 then return nil end
  local came, list, at = {}, {}, 1
  local function visit(some, from)
    for _, other in ipairs(some) do
      if other == id then
        local path = {}
        while from do
          path[#path + 1] = from
          from = came[from]
        end
        return path
      end
      if came[other] == nil and other ~= '' then
        came[other] = from or false
        list[#list + 1] = other
      end
    end
  end
  local found = visit(others, nil)
  while not found and list[at] do
    if at > VISITS then return true end
    local other = list[at]
    at = at + 1
    found = visit(inside[other] and inside[other].others or call('HKEYS', keys.upstream(other)), other)
  end
  return found
end

-- Again.

-- A task that had ended so begins anew. Whether it must wait for others once more.
function links.again(id, rec)
  local key = keys.upstream(id)
  local fields = call('HGETALL', key)
  if not fields[1] then return false end
  call('PERSIST', key)
  call('ZREM', keys.missing, id)
  local meta, changes = nil, {}
  for i = 1, #fields, 2 do
    if fields[i] == '' then meta = upstream.parse(fields[i + 1]) end
  end
  if not meta then return false end
  meta.succeeded, meta.failed, meta.canceled, meta.pending, meta.missing = 0, 0, 0, 0, 0
  for i = 1, #fields, 2 do
    local other, outcome = fields[i], fields[i + 1]
    if other ~= '' then
      local there = record.load(other)
      if there then
        local now = upstream.OUTCOMES[there.state] or PENDING
        if now == PENDING then
          call('SADD', keys.downstream(other), id)
          if not record.has(there, LINKED) then
            record.mark(there, LINKED)
            record.save(other, there)
          end
        end
        outcome = now
      elseif outcome == PENDING or outcome == MISSING then
        outcome = VANISHED
        call('SREM', keys.downstream(other), id)
      end
      upstream.count(meta, outcome, 1)
      changes[#changes + 1] = other
      changes[#changes + 1] = outcome
    end
  end
  changes[#changes + 1] = ''
  changes[#changes + 1] = upstream.packed(meta)
  upstream.write(key, changes)
  if meta.workflow ~= '' then workflows.node_again(meta.workflow, rec.state) end
  return upstream.decide(meta) == WAIT
end

-- Mapped tasks.

-- Another time for one that waits: as in push, so a delay begins when nothing is waited for any more.
function links.postpone(id, due)
  local meta = upstream.meta(id)
  meta.due = due
  upstream.write(keys.upstream(id), {'', upstream.packed(meta)})
end

-- A task has made others, all of which it waits for from now on.
function links.await_children(id, meta, children)
  local list = {}
  for _, child in ipairs(children) do
    list[#list + 1] = child
    list[#list + 1] = PENDING
    call('SADD', keys.downstream(child), id)
  end
  meta.rule, meta.due = 2, 0 -- however they end
  meta.pending, meta.children = meta.pending + #children, meta.children + #children
  list[#list + 1] = ''
  list[#list + 1] = upstream.packed(meta)
  upstream.write(keys.upstream(id), list)
end
