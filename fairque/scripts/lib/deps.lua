-- INCLUDE prelude keys states record clock tenants scheduler tasks triggers later workflows
-- EXPORTS deps
-- BEGIN deps.begin()
-- Who waits for whom. `keys.downstream(id)`: those that wait for a task. `keys.upstream(id)`: a hash of what a task waits for,
-- by id, each with how it ended; and under '' the counts of them, with all else that the task needs to be let go.
-- A task that has either is marked LINKED; nobody looks for these keys of any other.
local META = '>BI4I4I4I4I4ddI4'
local PENDING, MISSING = '0', 'm'
local OUTCOMES = {[FINISHED] = 's', [FAILED] = 'f', [CANCELED] = 'c'}
local TALLY_OF = {s = 'succeeded', f = 'failed', c = 'canceled', g = 'failed', ['0'] = 'pending', m = 'pending'}
local GONE = 0
local BUDGET = 500
local ARGUMENTS = 4000
local VISITS = 1000
local AWAITED = 1000
local SHORTEST_LIFE = 3600000
local deps = {}
local spent

function deps.begin()
  spent = 0
end

-- How much of this call's work is left.
function deps.left()
  return BUDGET - spent
end

function deps.spend(count)
  spent = spent + count
end

local function parse(data)
  local meta = {}
  local at
  meta.rule, meta.succeeded, meta.failed, meta.canceled, meta.pending, meta.missing, meta.due, meta.ttl,
    meta.children, at = struct.unpack(META, data)
  meta.workflow = string.sub(data, at)
  return meta
end

local function packed(meta)
  return struct.pack(META, meta.rule, meta.succeeded, meta.failed, meta.canceled, meta.pending, meta.missing, meta.due,
    meta.ttl, meta.children) .. meta.workflow
end

function deps.meta(id)
  local data = call('HGET', keys.upstream(id), '')
  return data and parse(data) or nil
end

local function decide(meta)
  return decide_trigger(meta.rule, meta.succeeded, meta.failed, meta.canceled, meta.pending)
end

local function count(meta, outcome, by)
  local name = TALLY_OF[outcome]
  meta[name] = meta[name] + by
  if outcome == MISSING then meta.missing = meta.missing + by end
end

-- µs of the server's clock. A delay begins when nothing is waited for any more.
local function due_of(due)
  return due < 0 and clock.now - due or due
end

local function let_go(id, rec, meta)
  local due = due_of(meta.due)
  if due > clock.now then
    tasks.move(id, rec, SCHEDULED, due)
    record.save(id, rec)
    return
  end
  rec.enqueued = clock.tick()
  local t = tasks.enqueue(id, rec, false)
  tasks.move(id, rec, QUEUED, rec.enqueued)
  record.save(id, rec)
  scheduler.place(t)
end

local WHY = {
  [DEPENDENCY] = 'it waits for task %s, which failed, and its trigger rule does not allow that',
  [UPSTREAM_CANCELED] = 'it waits for task %s, which was canceled, and its trigger rule does not allow that',
  [NOT_TRIGGERED] = 'the last of the tasks that it waited for, %s, has ended, and its trigger rule is not met',
  [UPSTREAM_GONE] = 'dependency %s is gone: it was deleted, or has expired, before this task could run',
}

local function end_without_running(id, rec, state, reason, other)
  tasks.add_error(id, rec, tasks.make_error(rec, 'DependencyError', string.format(WHY[reason], (other:gsub('%%', '%%%%')))))
  scheduler.place(tasks.conclude(id, rec, state, reason, conf.result_ttl))
end

local function follow(id, rec, meta, other)
  local action, state, reason = decide(meta)
  if action == RUN then
    let_go(id, rec, meta)
  elseif action == NEVER then
    end_without_running(id, rec, state, reason, other)
  end
end

-- One that waits is told how another ended: once.
local function tell(id, other, outcome)
  local key = keys.upstream(id)
  local found = call('HMGET', key, '', other)
  if not found[1] or (found[2] ~= PENDING and found[2] ~= MISSING) then return end
  local meta = parse(found[1])
  count(meta, found[2], -1)
  count(meta, outcome, 1)
  call('HSET', key, '', packed(meta), other, outcome)
  if meta.missing == 0 and found[2] == MISSING then call('ZREM', keys.missing, id) end
  local rec = record.load(id)
  if not rec or rec.state ~= DEFERRED then return end
  if outcome == 'g' then
    end_without_running(id, rec, FAILED, UPSTREAM_GONE, other)
  else
    follow(id, rec, meta, other)
  end
end

-- Those that wait for a task that has ended, as many as this call can do. Returns whether they were all.
function deps.wake(id, outcome)
  local key = keys.downstream(id)
  while BUDGET > spent do
    local ids = call('SPOP', key, math.min(100, BUDGET - spent))
    if not ids[1] then return true end
    for _, waiting in ipairs(ids) do tell(waiting, id, outcome) end
    spent = spent + #ids
  end
  return call('EXISTS', key) == 0
end

-- How long a task and what belongs to it stay.
function deps.expire(id, ttl)
  for _, key in ipairs({keys.task(id), keys.result(id), keys.errors(id), keys.upstream(id)}) do
    call('PEXPIRE', key, ttl)
  end
end

-- What follows from the tasks that have ended in this call; what follows from that in turn; and so on.
function deps.resolve()
  local ended = tasks.ended
  if not ended then return end
  local at = 1
  while ended[at] do
    local id, state, ttl = ended[at], ended[at + 1], ended[at + 2]
    at = at + 3
    local outcome = OUTCOMES[state] or 'g'
    local meta = deps.meta(id)
    local whole = deps.wake(id, outcome)
    if not whole then later.add('e' .. outcome .. id) end
    -- The nodes of a workflow are kept until that has ended, and what others wait for at least for some time.
    local kept = meta and meta.workflow ~= '' and workflows.node_ended(meta.workflow, state == GONE and CANCELED or state)
    if state == GONE then
      call('UNLINK', keys.upstream(id))
    elseif not kept and state ~= FAILED then
      deps.expire(id, math.max(ttl, SHORTEST_LIFE))
    end
  end
  tasks.ended = nil
end

-- Coming in.

local function pairs_to(key, list)
  for i = 1, #list, ARGUMENTS do
    call('HSET', key, unpack(list, i, math.min(i + ARGUMENTS - 1, #list)))
  end
end

-- `node`: rule, due, ttl, workflow (or ''), await (µs, 0: not at all), others. `inside`: ids that come in with the same call,
-- `waits`: who waits for each, filled in here and written by deps.write. Returns what becomes of it, and the others that
-- are not there.
function deps.look(node, inside)
  local meta = {rule = node.rule, succeeded = 0, failed = 0, canceled = 0, pending = 0, missing = 0, due = node.due,
    ttl = node.ttl, children = 0, workflow = node.workflow}
  local outcomes, unknown = {}, nil
  for i, other in ipairs(node.others) do
    local outcome = PENDING
    if not inside[other] then
      local rec = record.load(other)
      if rec then
        outcome = OUTCOMES[rec.state] or PENDING
      else
        outcome = MISSING
        unknown = unknown or other
      end
    end
    outcomes[i] = outcome
    count(meta, outcome, 1)
  end
  node.meta, node.outcomes = meta, outcomes
  return decide(meta), unknown
end

-- As deps.look, for one whose others are not there and will not come.
function deps.without(node)
  for i, other in ipairs(node.others) do
    if node.outcomes[i] == MISSING then
      count(node.meta, MISSING, -1)
      count(node.meta, 'g', 1)
      node.outcomes[i] = 'g'
      node.gone = other
    end
  end
  return NEVER
end

-- Before the records of those that it waits for are written, unless these come in with the same call.
function deps.write(id, node, inside, waits)
  local list = {'', packed(node.meta)}
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
  pairs_to(keys.upstream(id), list)
  if node.meta.missing > 0 then
    call('ZADD', keys.missing, string.format('%.17g', clock.now + node.await), id)
  end
end

function deps.write_waits(waits)
  for other, ids in pairs(waits) do
    for i = 1, #ids, ARGUMENTS do
      call('SADD', keys.downstream(other), unpack(ids, i, math.min(i + ARGUMENTS - 1, #ids)))
    end
  end
end

-- It never runs: the call that stored it has just said so.
function deps.end_at_once(id, node)
  local rec = record.load(id)
  if node.gone then return end_without_running(id, rec, FAILED, UPSTREAM_GONE, node.gone) end
  local _, state, reason = decide(node.meta)
  local which = '-'
  for i, other in ipairs(node.others) do
    if node.outcomes[i] == (reason == UPSTREAM_CANCELED and 'c' or 'f') then which = other end
  end
  end_without_running(id, rec, state, reason, which)
end

-- A task comes in that somebody waits for already: then it is marked. Those that waited for it to appear do so no more.
function deps.appeared(id, rec)
  local ids = call('SRANDMEMBER', keys.downstream(id), AWAITED)
  if not ids[1] then return end
  record.mark(rec, LINKED)
  call('PERSIST', keys.downstream(id))
  for _, waiting in ipairs(ids) do
    local key = keys.upstream(waiting)
    local found = call('HMGET', key, '', id)
    if found[1] and found[2] == MISSING then
      local meta = parse(found[1])
      meta.missing = meta.missing - 1
      call('HSET', key, '', packed(meta), id, PENDING)
      if meta.missing == 0 then call('ZREM', keys.missing, waiting) end
    end
  end
end

-- The tasks of a cycle that this one would close, from it on; or true: there are too many to look at.
function deps.cycle(id, others, inside)
  if call('EXISTS', keys.downstream(id)) == 0 then return nil end
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
function deps.again(id, rec)
  local key = keys.upstream(id)
  local fields = call('HGETALL', key)
  if not fields[1] then return false end
  call('PERSIST', key)
  local meta, changes = nil, {}
  for i = 1, #fields, 2 do
    if fields[i] == '' then meta = parse(fields[i + 1]) end
  end
  if not meta then return false end
  meta.succeeded, meta.failed, meta.canceled, meta.pending, meta.missing = 0, 0, 0, 0, 0
  for i = 1, #fields, 2 do
    local other, outcome = fields[i], fields[i + 1]
    if other ~= '' then
      local there = record.load(other)
      if there then
        local now = OUTCOMES[there.state] or PENDING
        if now == PENDING then
          call('SADD', keys.downstream(other), id)
          if not record.has(there, LINKED) then
            record.mark(there, LINKED)
            record.save(other, there)
          end
        end
        outcome = now
      elseif outcome == PENDING or outcome == MISSING then
        outcome = 'g'
      end
      count(meta, outcome, 1)
      changes[#changes + 1] = other
      changes[#changes + 1] = outcome
    end
  end
  changes[#changes + 1] = ''
  changes[#changes + 1] = packed(meta)
  pairs_to(key, changes)
  if meta.workflow ~= '' then workflows.node_again(meta.workflow, rec.state) end
  return decide(meta) == WAIT
end

-- Mapped tasks.

-- A task has made others, all of which it waits for from now on.
function deps.await_children(id, meta, children)
  local list = {}
  for _, child in ipairs(children) do
    list[#list + 1] = child
    list[#list + 1] = PENDING
    call('SADD', keys.downstream(child), id)
  end
  meta.rule, meta.due = 2, 0 -- however they end
  meta.pending, meta.children = meta.pending + #children, meta.children + #children
  list[#list + 1] = ''
  list[#list + 1] = packed(meta)
  pairs_to(keys.upstream(id), list)
end

-- What time alone brings.

-- Another time for one that waits: as in push, so a delay begins when nothing is waited for any more.
function deps.postpone(id, due)
  local meta = deps.meta(id)
  meta.due = due
  call('HSET', keys.upstream(id), '', packed(meta))
end

-- Whom a task waits for and does not find. Some of them, or all.
local function gone_among(id, all)
  local key = keys.upstream(id)
  local fields = all and call('HGETALL', key) or call('HRANDFIELD', key, 20, 'WITHVALUES')
  local missing
  for i = 1, #fields, 2 do
    local other, outcome = fields[i], fields[i + 1]
    if outcome == PENDING or outcome == MISSING then
      local rec = record.load(other)
      if not rec then
        if outcome == PENDING or all then
          missing = missing or other
          call('SREM', keys.downstream(other), id)
        end
      elseif OUTCOMES[rec.state] then
        -- What should have been told to it was lost.
        if call('LLEN', keys.continued) == 0 then tell(id, other, OUTCOMES[rec.state]) end
      elseif outcome == PENDING and not record.has(rec, LINKED) then
        record.mark(rec, LINKED)
        record.save(other, rec)
        call('SADD', keys.downstream(other), id)
      end
    end
  end
  return missing, #fields > 0
end

-- Those that have waited long enough for others to appear.
function deps.give_up_missing(limit)
  local ids = call('ZRANGEBYSCORE', keys.missing, '-inf', clock.now, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    call('ZREM', keys.missing, id)
    local rec = record.load(id)
    if rec and rec.state == DEFERRED then
      local missing = gone_among(id, true)
      if missing then
        tasks.add_error(id, rec, tasks.make_error(rec, 'UnknownDependencyError', 'it waits for task ' .. missing ..
          ', which did not appear within await_missing_seconds'))
        scheduler.place(tasks.conclude(id, rec, FAILED, UPSTREAM_GONE, conf.result_ttl))
      end
    end
  end
end

-- A few of those that wait: nobody waits for what is gone.
function deps.check(limit)
  for _, id in ipairs(call('ZRANDMEMBER', keys.state('deferred'), limit)) do
    local rec = record.load(id)
    if rec and rec.state == DEFERRED and record.has(rec, LINKED) then
      local gone, known = gone_among(id, false)
      rec = record.load(id)
      if rec.state == DEFERRED then
        if gone then
          end_without_running(id, rec, FAILED, UPSTREAM_GONE, gone)
        elseif not known then
          end_without_running(id, rec, FAILED, UPSTREAM_GONE, '(all of them)')
        end
      end
    end
  end
end
