-- INCLUDE prelude keys states record clock tenants scheduler stats tasks leases settle wake writes
-- EXPORTS sweep
-- What time alone brings: due tasks, expired tasks, dead workers. Every call of a worker does a little of it. Each step
-- says what it has changed before the next one, which may be about the same tasks.
local PROMOTE, EXPIRE, REAP, PASSED = 200, 100, 100, 10
-- What became of a task that a dead incarnation held.
local UNBEGUN, AGAIN, BURIED, CALLED_OFF = '0', '1', '2', '3'
local sweep = {}

local function enqueue(id, rec, at_head)
  local t = tasks.enqueue(id, rec, at_head)
  tasks.move(id, rec, QUEUED, clock.now)
  record.save(id, rec)
  scheduler.place(t)
end

-- scheduled -> queued: their time came. A retry or a delayed task stands where it would if pushed when due.
function sweep.promote(limit)
  local due = call('ZRANGEBYSCORE', keys.state('scheduled'), '-inf', clock.now, 'LIMIT', 0, limit or PROMOTE)
  for _, id in ipairs(due) do
    local rec = record.load(id)
    if not rec or rec.state ~= SCHEDULED then
      call('ZREM', keys.state('scheduled'), id)
    elseif record.has(rec, UNKNOWN) then
      settle.give_up_waiting(id, rec)
    else
      rec.enqueued = math.max(rec.entered, rec.created)
      enqueue(id, rec, false)
    end
  end
  writes.flush()
  return #due
end

-- scheduled -> queued: what others passed on, if this worker has the function.
function sweep.take_back(incarnation)
  local ids = call('ZRANGE', keys.passed, 0, PASSED - 1)
  if not ids[1] then return end
  local functions = call('HGET', keys.worker(incarnation), 'functions')
  for _, id in ipairs(ids) do
    local rec = record.load(id)
    if not rec or rec.state ~= SCHEDULED or not record.has(rec, UNKNOWN) then
      call('ZREM', keys.passed, id)
    elseif rec.holder ~= incarnation and wake.has(functions, rec.func) then
      call('ZREM', keys.passed, id)
      enqueue(id, rec, true)
    else
      call('ZADD', keys.passed, clock.now, id) -- behind those that were not looked at
    end
  end
  writes.flush()
end

-- queued | scheduled | deferred -> canceled: too late to start.
function sweep.expire_one(id, rec)
  local t = tenants.get(rec.user)
  if rec.state == QUEUED then tasks.dequeue(id, rec) end
  tasks.conclude(id, rec, CANCELED, EXPIRED, conf.result_ttl)
  scheduler.place(t)
end

function sweep.expire(limit)
  local late = call('ZRANGEBYSCORE', keys.expiring, '-inf', clock.now, 'LIMIT', 0, limit or EXPIRE)
  for _, id in ipairs(late) do
    local rec = record.load(id)
    if rec and (rec.state == QUEUED or rec.state == SCHEDULED or rec.state == DEFERRED) then
      sweep.expire_one(id, rec)
    end
    call('ZREM', keys.expiring, id)
  end
  writes.flush()
  return #late
end

-- The registries of tasks whose records have expired: the oldest entries, and if records with a longer TTL stand
-- there, some place behind them.
function sweep.forget(limit)
  local before = clock.now - conf.result_ttl * 1000
  local forgotten = 0
  for _, state in ipairs({FINISHED, CANCELED}) do
    local registry = keys.state(STATE_NAMES[state])
    local old = call('ZRANGEBYSCORE', registry, '-inf', before, 'LIMIT', 0, limit)
    local gone = 0
    local function drop(ids)
      for _, id in ipairs(ids) do
        if call('EXISTS', keys.task(id)) == 0 then gone = gone + call('ZREM', registry, id) end
      end
    end
    drop(old)
    if gone == 0 and #old == limit then
      local offset = clock.now % call('ZCOUNT', registry, '-inf', before)
      drop(call('ZRANGE', registry, offset, offset + limit - 1)) -- by rank: an offset would be walked to
    end
    forgotten = forgotten + gone
  end
  return forgotten
end

local function add(news, ...)
  for _, value in ipairs({...}) do news[#news + 1] = value end
end

-- An incarnation is marked dead first, so that nothing it says afterwards counts.
function sweep.bury(incarnation)
  local slots = tonumber(call('HGET', keys.worker(incarnation), 'slots') or 0)
  clock.slots = math.max(0, clock.slots - slots)
  scheduler.refit()
  call('ZREM', keys.workers, incarnation)
  wake.unpark(incarnation)
  call('DEL', keys.wake(incarnation))
  call('ZADD', keys.dead, clock.now, incarnation)
  wake.hand_on(call('HGET', keys.worker(incarnation), 'due'))
end

-- Its tasks go back in chunks. `begun`: tokens of those that had begun, or nil: all are taken to have.
-- They are charged to the last renewal plus one interval, at least. `news` is told of each (see sweep.reap).
function sweep.give_back(incarnation, limit, begun, renewed, news)
  local held = call('HGETALL', keys.held(incarnation))
  local done, again = 0, 0
  for i = 1, #held, 2 do
    if done >= limit then
      call('HINCRBY', keys.worker(incarnation), 'again', again)
      return done, false
    end
    local id, token = held[i], string.sub(held[i + 1], 1, 16)
    local rec = record.load(id)
    if rec and rec.state == STARTED and rec.token == token then
      local t = tenants.get(rec.user)
      local seconds = (math.min(clock.now, renewed + conf.lease / 3) - rec.entered) / 1000000
      if record.has(rec, CANCEL) then
        leases.drop(incarnation, id)
        scheduler.finish(t, rec, math.max(0, seconds), false)
        tasks.conclude(id, rec, CANCELED, BY_CALLER, conf.result_ttl)
        add(news, incarnation, '', id, rec.user, rec.func, CALLED_OFF .. rec.attempt)
      else
        local had_begun = begun == nil or begun[token] == true
        settle.crash(id, rec, t, seconds, had_begun, '')
        if rec.state ~= FAILED then again = again + 1 end
        add(news, incarnation, '', id, rec.user, rec.func,
          (rec.state == FAILED and BURIED or had_begun and AGAIN or UNBEGUN) .. rec.attempt)
      end
      scheduler.place(t)
    elseif rec then
      leases.drop(incarnation, id)
    else
      leases.drop_orphan(incarnation, id)
    end
    done = done + 1
  end
  local told = call('HMGET', keys.worker(incarnation), 'fields', 'again')
  add(news, incarnation, told[1] or '', '', '', '', tostring(again + tonumber(told[2] or 0)))
  call('DEL', keys.worker(incarnation), keys.wake(incarnation))
  call('ZREM', keys.dead, incarnation)
  return done, true
end

-- Dead workers: leases past their deadline, and what earlier calls left over. If nobody swept for two thirds of a
-- lease (two heartbeats), the server, not the workers, was away: nothing is reaped for one lease more.
-- Returns the news, six values each: the incarnation, then of a task its id, user, function, and what became of it with
-- its attempt; or once all is given back, of the incarnation what it had told about itself, and how many of its tasks
-- were queued again.
function sweep.reap()
  local news = {}
  if clock.now - clock.swept > conf.lease * 2 / 3 then clock.grace = clock.now + conf.lease end
  clock.swept = clock.now
  local left = REAP
  if clock.now >= clock.grace then
    for _, incarnation in ipairs(call('ZRANGEBYSCORE', keys.workers, '-inf', clock.now, 'LIMIT', 0, 10)) do
      local deadline = tonumber(call('ZSCORE', keys.workers, incarnation))
      call('HSET', keys.worker(incarnation), 'renewed', string.format('%.17g', deadline - conf.lease))
      sweep.bury(incarnation)
      stats.add('workers_dead')
    end
  end
  for _, incarnation in ipairs(call('ZRANGE', keys.dead, 0, 9)) do
    if left <= 0 then break end
    local renewed = tonumber(call('HGET', keys.worker(incarnation), 'renewed') or clock.now)
    left = left - sweep.give_back(incarnation, left, nil, renewed, news)
  end
  writes.flush()
  return news
end
