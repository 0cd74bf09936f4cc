-- INCLUDE prelude keys states record clock tenants stats wake
-- EXPORTS tasks
-- What every transition does: the registry of states, the user's queues, the counters, the watchers.
local CRITICAL = 6
local HEADS = 32
local tasks = {}

-- An expiry is about the start, also of another attempt: what runs does not expire.
local function waits(state)
  return state == QUEUED or state == SCHEDULED or state == DEFERRED
end

-- From one state to another, at `score` in the new state's registry. The caller saves the record.
function tasks.move(id, rec, to, score)
  if not TRANSITIONS[rec.state][to] then
    refuse('STATE', id .. ' ' .. STATE_NAMES[rec.state] .. ' ' .. STATE_NAMES[to])
  end
  call('ZREM', keys.state(STATE_NAMES[rec.state]), id)
  call('ZADD', keys.state(STATE_NAMES[to]), score, id)
  if rec.expires > 0 and waits(rec.state) ~= waits(to) then
    if waits(to) then call('ZADD', keys.expiring, rec.expires, id) else call('ZREM', keys.expiring, id) end
  end
  rec.state, rec.entered = to, score
  if record.has(rec, WATCHED) then
    wake.watchers(id, 's' .. id .. '\n' .. string.char(to, rec.reason) .. struct.pack('>H', rec.attempt))
  end
end

-- At the head, but behind those that came earlier: what is given back together keeps its order.
local function insert_critical(key, id, rec)
  local earlier
  for i = 0, HEADS - 1 do
    local other = call('LINDEX', key, i)
    local there = other and record.load(other)
    if not there or there.enqueued > rec.enqueued then break end
    earlier = other
  end
  if earlier then call('LINSERT', key, 'AFTER', earlier, id) else call('LPUSH', key, id) end
end

-- Into its user's queue. At the head: where it was before, by its old time; else behind what is there.
function tasks.enqueue(id, rec, at_head)
  local t = tenants.get(rec.user)
  if not at_head then tenants.arrive(t) end
  if rec.priority == CRITICAL then
    if at_head then
      insert_critical(keys.critical(rec.user), id, rec)
    else
      call('RPUSH', keys.critical(rec.user), id)
    end
    t.critical = t.critical + 1
  else
    call('ZADD', keys.normal(rec.user), rec.enqueued - rec.priority * conf.aging, id)
    t.normal = t.normal + 1
  end
  return t
end

-- Out of its user's queue.
function tasks.dequeue(id, rec)
  local t = tenants.get(rec.user)
  if rec.priority == CRITICAL then
    t.critical = math.max(0, t.critical - call('LREM', keys.critical(rec.user), 1, id))
  else
    t.normal = math.max(0, t.normal - call('ZREM', keys.normal(rec.user), id))
  end
  return t
end

-- The id at the head of the tenant's queues, taken out; nil if they are empty after all (the counts are then mended).
function tasks.pop(t)
  local id
  if t.critical > 0 then
    id = call('LPOP', keys.critical(t.user))
    if id then
      t.critical = t.critical - 1
      return id
    end
  end
  id = call('ZPOPMIN', keys.normal(t.user))[1]
  if id then
    t.normal = math.max(0, t.normal - 1)
    return id
  end
  t.critical, t.normal = call('LLEN', keys.critical(t.user)), 0
  stats.add('healed')
  return nil
end

-- Into a terminal state. A finished or canceled task is kept for `ttl` ms (0: not at all), a failed one until it is
-- purged or requeued.
function tasks.conclude(id, rec, state, reason, ttl)
  local t = tenants.get(rec.user)
  rec.reason = reason
  tasks.move(id, rec, state, clock.now)
  if record.has(rec, UNKNOWN) then call('ZREM', keys.passed, id) end
  if rec.dedup_size > 0 then
    -- With a window, the key counts until that is over.
    local key = keys.dedup(rec.user, record.dedup(rec))
    if call('GET', key) == id and call('PTTL', key) < 0 then call('DEL', key) end
  end
  record.save(id, rec)
  if state == FAILED then
    t.failed = t.failed + 1
    call('ZADD', keys.dlq(rec.user), clock.now, id)
    stats.add('failed')
  else
    if state == FINISHED then t.finished = t.finished + 1 else t.canceled = t.canceled + 1 end
    stats.add(STATE_NAMES[state])
    if ttl > 0 then
      call('PEXPIRE', keys.task(id), ttl)
      if record.has(rec, ERRORS) then call('PEXPIRE', keys.errors(id), ttl) end
    else
      call('DEL', keys.task(id), keys.errors(id), keys.progress(id))
      call('ZREM', keys.state(STATE_NAMES[state]), id)
    end
  end
  return t
end

-- One error of a task, as core/codec.py writes them.
function tasks.add_error(id, rec, error)
  if error == '' then return end
  call('RPUSH', keys.errors(id), error)
  record.mark(rec, ERRORS)
end

function tasks.make_error(rec, kind, message)
  return cmsgpack.pack({rec.attempt, kind, message, '', clock.now / 1000000})
end
