-- INCLUDE prelude keys states record clock tenants scheduler tasks writes
-- EXPORTS store
-- How a new task comes in.
local DUPLICATE = {reject = 0, ['return'] = 2, throttle = 10}
local store = {}

-- The code and id that push answers instead of storing: the id or the key is taken. Nothing if they are free.
function store.existing(id, rec, on_duplicate, window)
  local held = call('GETRANGE', keys.task(id), 0, HEAD_AND_NAMES - 1)
  if held ~= '' then
    local old = record.parse(held)
    -- A replay of this very push: its reply was lost.
    if old and old.op_size > 0 and record.op(old) == record.op(rec) then return 1, id end
    return on_duplicate == 'return' and 2 or 0, id
  end
  if window >= 0 then
    local holder = call('GET', keys.dedup(rec.user, record.dedup(rec)))
    if holder then
      writes.flush() -- it may have come with the same call
      local other = record.load(holder)
      if window > 0 or (other and TRANSITIONS[other.state] and other.state ~= FINISHED and other.state ~= FAILED
          and other.state ~= CANCELED) then
        return DUPLICATE[on_duplicate], holder
      end
    end
  end
end

-- The code and name of a limiter that does not exist.
function store.unknown_limiter(rec)
  local limiter = record.limiter(rec)
  if limiter and call('HEXISTS', keys.limiters, limiter) == 0 then return 4, limiter end
end

-- The code and detail with which push refuses what may not come in. Nothing if it may. `more`: how many will come before it,
-- by tenant.
function store.refusal(rec, more)
  local code, limiter = store.unknown_limiter(rec)
  if code then return code, limiter end
  local quota = tenants.over_quota(tenants.get(rec.user), more)
  if quota then return 3, quota end
end

-- Into its user's queue, or until it is due into the registry alone; then the due time is returned. `deferred`: until those
-- that it waits for have ended.
function store.put(id, rec, due, window, deferred)
  local at = clock.tick()
  if due < 0 then due = at - due end
  rec.created, rec.enqueued, rec.entered = at, at, at
  rec.state = deferred and DEFERRED or due > at and SCHEDULED or QUEUED
  if rec.state == SCHEDULED then rec.entered = due end
  writes.record(keys.task(id), record.whole(rec))
  writes.move(id, 0, rec.state, rec.entered)
  if rec.expires > 0 then call('ZADD', keys.expiring, rec.expires, id) end
  if window > 0 then
    call('SET', keys.dedup(rec.user, record.dedup(rec)), id, 'PX', window)
  elseif window == 0 then
    call('SET', keys.dedup(rec.user, record.dedup(rec)), id)
  end
  if rec.state ~= QUEUED then
    tenants.count(tenants.get(rec.user), 'delayed', 1)
    return not deferred and due or nil
  end
  local t = tasks.enqueue(id, rec, false)
  if t.ready then return end
  local alone = t.critical + t.normal + t.limited == 1
  -- Who enters is charged for its next task, which may be one of those that are still to be written.
  if not alone then writes.flush() end
  scheduler.place(t, alone and rec or nil)
end
