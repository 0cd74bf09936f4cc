-- INCLUDE prelude keys states record clock tenants scheduler tasks triggers later workflows upstream
-- EXPORTS deps
-- BEGIN deps.begin()
-- What the end of a task means for those that wait for it, and for the workflow that it is in.
local GONE = 0
local BUDGET = 500
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

function deps.end_without_running(id, rec, state, reason, other)
  tasks.add_error(id, rec, tasks.make_error(rec, 'DependencyError', string.format(WHY[reason], other)))
  scheduler.place(tasks.conclude(id, rec, state, reason, conf.result_ttl))
end

local function follow(id, rec, meta, other)
  local action, state, reason = upstream.decide(meta)
  if action == RUN then
    let_go(id, rec, meta)
  elseif action == NEVER then
    deps.end_without_running(id, rec, state, reason, other)
  end
end

-- One that waits is told how another ended: once.
local function tell(id, other, outcome)
  local key = keys.upstream(id)
  local found = call('HMGET', key, '', other)
  if not found[1] or (found[2] ~= PENDING and found[2] ~= MISSING) then return end
  local meta = upstream.parse(found[1])
  upstream.count(meta, found[2], -1)
  upstream.count(meta, outcome, 1)
  call('HSET', key, '', upstream.packed(meta), other, outcome)
  if meta.missing == 0 and found[2] == MISSING then call('ZREM', keys.missing, id) end
  if outcome ~= VANISHED and upstream.decide(meta) == WAIT then return end
  local rec = record.load(id)
  if not rec or rec.state ~= DEFERRED then return end
  if outcome == VANISHED then
    deps.end_without_running(id, rec, FAILED, UPSTREAM_GONE, other)
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

-- How long a task and what belongs to it stay: for `ttl` ms, or without it until something else is said.
function deps.expire(id, ttl)
  for _, key in ipairs({keys.task(id), keys.result(id), keys.errors(id), keys.upstream(id)}) do
    if ttl then call('PEXPIRE', key, ttl) else call('PERSIST', key) end
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
    local outcome = upstream.OUTCOMES[state] or VANISHED
    local meta = upstream.meta(id)
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

-- What time alone brings.

-- One that a task waits for and that did not appear.
local function absent(id)
  local fields = call('HGETALL', keys.upstream(id))
  for i = 1, #fields, 2 do
    if fields[i + 1] == MISSING and call('EXISTS', keys.task(fields[i])) == 0 then return fields[i] end
  end
end

-- Those that have waited long enough for others to appear.
function deps.give_up_missing(limit)
  local ids = call('ZRANGEBYSCORE', keys.missing, '-inf', clock.now, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    if spent >= BUDGET then return end
    call('ZREM', keys.missing, id)
    local rec = record.load(id)
    local missing = rec and rec.state == DEFERRED and absent(id)
    if missing then
      tasks.add_error(id, rec, tasks.make_error(rec, 'UnknownDependencyError', 'it waits for task ' .. missing ..
        ', which did not appear within await_missing_seconds'))
      scheduler.place(tasks.conclude(id, rec, FAILED, UPSTREAM_GONE, conf.result_ttl))
    end
    spent = spent + 1 + math.floor(call('HLEN', keys.upstream(id)) / 10)
  end
end

-- Some of those that a task waits for are looked at: one that is gone, and whether any is known.
local function gone_among(id)
  local fields = call('HRANDFIELD', keys.upstream(id), 20, 'WITHVALUES')
  local gone
  local meta = upstream.meta(id)
  -- Of a workflow that is coming in, those that others wait for come last.
  if meta and meta.workflow ~= '' and call('EXISTS', keys.stage(meta.workflow)) == 1 then return nil, true end
  for i = 1, #fields, 2 do
    local other, outcome = fields[i], fields[i + 1]
    if outcome == PENDING or outcome == MISSING then
      local rec = record.load(other)
      if not rec then
        if outcome == PENDING then
          gone = gone or other
          call('SREM', keys.downstream(other), id)
        end
      elseif upstream.OUTCOMES[rec.state] then
        -- What should have been told to it was lost.
        if call('LLEN', keys.continued) == 0 then tell(id, other, upstream.OUTCOMES[rec.state]) end
      elseif outcome == PENDING and not record.has(rec, LINKED) then
        record.mark(rec, LINKED)
        record.save(other, rec)
        call('SADD', keys.downstream(other), id)
      end
    end
  end
  return gone, #fields > 0
end

-- A few of those that wait: nobody waits for what is gone.
function deps.check(limit)
  for _, id in ipairs(call('ZRANDMEMBER', keys.state('deferred'), limit)) do
    local rec = record.load(id)
    if rec and rec.state == DEFERRED and record.has(rec, LINKED) then
      local gone, known = gone_among(id)
      rec = record.load(id)
      if rec.state == DEFERRED then
        if gone then
          deps.end_without_running(id, rec, FAILED, UPSTREAM_GONE, gone)
        elseif not known then
          deps.end_without_running(id, rec, FAILED, UPSTREAM_GONE, '(all of them)')
        end
      end
    end
  end
end
