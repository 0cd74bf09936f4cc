-- INCLUDE prelude keys states record clock tenants stats wake writes letters
-- EXPORTS tasks
-- BEGIN tasks.begin()
-- What every transition does: the registry of states, the user's queues, the counters, the watchers.
local CRITICAL = 6
local FIRST = 4000000000000000
local HEADS = 32
local ATTEMPT = '>BHHddddc11' -- core/attempts.py
local ATTEMPTS_KEPT = 50
local tasks = {}

-- `ended`: tasks that others may wait for, and that have ended in this call, as id, state and TTL (lib/deps.lua).
function tasks.begin()
  if tasks.ended then tasks.ended = nil end
end

function tasks.tell_of(id, state, ttl)
  local list = tasks.ended
  if not list then
    list = {}
    tasks.ended = list
  end
  list[#list + 1] = id
  list[#list + 1] = state
  list[#list + 1] = ttl
end

-- An expiry is about the start, also of another attempt: what runs does not expire.
local function waits(state)
  return state == QUEUED or state == SCHEDULED or state == DEFERRED
end

-- It waits, but not for a slot.
local function delays(state)
  return state == SCHEDULED or state == DEFERRED
end

-- From one state to another, at `score` in the new state's registry, unless it is `forgotten` with that. The caller saves
-- the record.
function tasks.move(id, rec, to, score, forgotten)
  if not TRANSITIONS[rec.state][to] then
    refuse('STATE', id .. ' ' .. STATE_NAMES[rec.state] .. ' ' .. STATE_NAMES[to])
  end
  writes.move(id, rec.state, forgotten and 0 or to, score)
  local from = rec.state
  if to == SCHEDULED or to == DEFERRED or from == SCHEDULED or from == DEFERRED then
    local delayed = (delays(to) and 1 or 0) - (delays(from) and 1 or 0)
    if delayed ~= 0 then tenants.count(tenants.get(rec.user), 'delayed', delayed) end
  end
  if rec.expires > 0 and waits(rec.state) ~= waits(to) then
    if waits(to) then call('ZADD', keys.expiring, rec.expires, id) else call('ZREM', keys.expiring, id) end
  end
  rec.state, rec.entered = to, score
  if rec.flags ~= 0 and record.has(rec, WATCHED) then
    wake.watchers(id, 's' .. id .. '\n' .. string.char(to, rec.reason) .. struct.pack('>H', rec.attempt))
  end
end

-- At the head, but behind those that came earlier: what is given back together keeps its order.
local function insert_critical(key, id, rec)
  local earlier
  for i = 0, HEADS - 1 do
    local other = redis.pcall('LINDEX', key, i)
    local there = type(other) == 'string' and record.load(other)
    if not there or there.enqueued > rec.enqueued then break end
    earlier = other
  end
  if earlier then return redis.pcall('LINSERT', key, 'AFTER', earlier, id) end
  return redis.pcall('LPUSH', key, id)
end

local function score_of(rec)
  if rec.priority == CRITICAL then return rec.enqueued - FIRST end
  return rec.enqueued - rec.priority * conf.aging
end

-- Into its user's queue. At the head: where it was before, by its old time; else behind what is there. Each limiter has a
-- queue of its own, so that what waits for it holds nothing else up. Should the queue be broken, the task waits in the
-- registry alone, until that is mended.
function tasks.enqueue(id, rec, at_head)
  local t = tenants.get(rec.user)
  local limiter = record.limiter(rec)
  if not at_head then tenants.arrive(t) end
  local kind, reply = 'normal', nil
  if limiter then
    kind, reply = 'limited', redis.pcall('ZADD', keys.limited(rec.user, limiter), score_of(rec), id)
    tenants.queued_under(t, limiter)
  elseif rec.priority ~= CRITICAL then
    tenants.add(t, score_of(rec), id)
  elseif at_head then
    kind, reply = 'critical', insert_critical(keys.critical(rec.user), id, rec)
  else
    kind, reply = 'critical', redis.pcall('RPUSH', keys.critical(rec.user), id)
  end
  if not tenants.is_broken(reply) then tenants.count(t, kind, 1) end
  return t
end

-- Out of its user's queue.
function tasks.dequeue(id, rec)
  local t = tenants.get(rec.user)
  local limiter = record.limiter(rec)
  local kind, removed = 'normal', nil
  if limiter then
    kind, removed = 'limited', redis.pcall('ZREM', keys.limited(rec.user, limiter), id)
    if call('EXISTS', keys.limited(rec.user, limiter)) == 0 then tenants.emptied_under(t, limiter) end
  elseif rec.priority == CRITICAL then
    kind, removed = 'critical', redis.pcall('LREM', keys.critical(rec.user), 1, id)
  else
    tenants.sync(t)
    removed = redis.pcall('ZREM', keys.normal(rec.user), id)
  end
  if not tenants.is_broken(removed) then tenants.count(t, kind, -removed) end
  return t
end

-- The id that a claim takes, out of the tenant's queues, and its record if that was read too; nil if nothing there can
-- start after all. Then the counts are mended, should the queues be shorter than they say, or be no queues any more.
function tasks.pop(t)
  if t.critical > 0 then
    local id = redis.pcall('LPOP', keys.critical(t.user))
    if type(id) == 'string' then
      tenants.count(t, 'critical', -1)
      return id
    end
  end
  local queue, id, limiter, data
  if t.limited == 0 then
    if t.normal > 0 then id, data = tenants.take_head(t) end
  else
    queue, id, limiter = tenants.next_queue(t)
    if id then call('ZREM', queue, id) end
  end
  if limiter then
    tenants.count(t, 'limited', -1)
    if call('EXISTS', queue) == 0 then tenants.emptied_under(t, limiter) end
  elseif id then
    tenants.count(t, 'normal', -1)
  else
    tenants.recount(t)
  end
  return id, data
end

-- `field`: finished, failed or canceled; of a tenant and its organisation.
local function count_end(t, field)
  while t do
    t[field] = t[field] + 1
    t = t.group
  end
end

-- Into a terminal state. A finished or canceled task is kept for `ttl` ms (0: not at all), a failed one until it is
-- purged or requeued.
function tasks.conclude(id, rec, state, reason, ttl)
  local t = tenants.get(rec.user)
  rec.reason = reason
  local linked = record.has(rec, LINKED)
  tasks.move(id, rec, state, clock.now, state ~= FAILED and ttl == 0 and not linked)
  if record.has(rec, UNKNOWN) then call('ZREM', keys.passed, id) end
  if rec.dedup_size > 0 then
    -- With a window, the key counts until that is over.
    local key = keys.dedup(rec.user, record.dedup(rec))
    if call('GET', key) == id and call('PTTL', key) < 0 then call('DEL', key) end
  end
  if linked then tasks.tell_of(id, state, ttl) end
  if linked or state == FAILED or ttl > 0 then record.save(id, rec) end
  if state == FAILED then
    count_end(t, 'failed')
    letters.add(id, rec)
    clock.failed = clock.failed + 1
  else
    if state == FINISHED then
      count_end(t, 'finished')
      clock.finished = clock.finished + 1
    else
      count_end(t, 'canceled')
      stats.add('canceled')
    end
    if linked then
      return t -- how long it is kept depends on who waits for it
    elseif ttl > 0 then
      call('PEXPIRE', keys.task(id), ttl)
      if record.has(rec, ERRORS) then call('PEXPIRE', keys.errors(id), ttl) end
    else
      -- Its progress, if it told any, expires by itself.
      writes.delete(keys.task(id))
      if record.has(rec, ERRORS) then writes.delete(keys.errors(id)) end
    end
  end
  return t
end

-- What an attempt died of, as core/codec.py packs it, behind what is known of the attempt here. Before the task moves on.
-- `delay`: µs until the next attempt, left out if there is none; `held`: those of them that the retry budget adds.
function tasks.add_error(id, rec, error, delay, held)
  if error == '' then return end
  local started = rec.state == STARTED and rec.entered or 0
  local head = struct.pack(ATTEMPT, 1, rec.attempt, rec.run, started, clock.now, delay or -1, held or 0,
    started > 0 and rec.holder or NO_HOLDER)
  local kept = call('RPUSH', keys.errors(id), head .. error)
  if kept > ATTEMPTS_KEPT then call('LTRIM', keys.errors(id), -ATTEMPTS_KEPT, -1) end
  record.mark(rec, ERRORS)
end

function tasks.make_error(rec, kind, message)
  return cmsgpack.pack({rec.attempt, kind, message, '', clock.now / 1000000})
end
