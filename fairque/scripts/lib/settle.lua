-- INCLUDE prelude keys states record clock tenants scheduler stats tasks leases wake retries
-- EXPORTS settle
-- How a claim ends. Each settle is fenced by the claim's token and answers with a code (queue/operations/claims.py):
-- 0 stale, 1 finished, 2 retried, 3 failed, 4 released, 5 snoozed, 6 canceled, 7 given back for others.
-- An outcome that has been recorded (its reply was lost) is told by its token and kind, and answered as it was then.
-- What is given back without an outcome loses its token: nothing that its holder still says counts.
local STALE, WAS_FINISHED, WAS_RETRIED, WAS_FAILED, WAS_RELEASED, WAS_SNOOZED, WAS_CANCELED, WAS_PASSED_ON =
  0, 1, 2, 3, 4, 5, 6, 7
local APPLIED = {
  finish = {[FINISHED] = WAS_FINISHED},
  fail = {[SCHEDULED] = WAS_RETRIED, [QUEUED] = WAS_RETRIED, [FAILED] = WAS_FAILED},
  invalid = {[FAILED] = WAS_FAILED},
  discard = {[CANCELED] = WAS_CANCELED},
}
local CRASHES_ALONE = 3
local settle = {KINDS = {'finish', 'fail', 'invalid', 'release', 'snooze', 'discard', 'unknown', 'crash'}}

-- The claim's slot, cap and charge are left; what follows says where the task goes.
local function let_go(id, rec, t, seconds, learns)
  leases.drop(rec.holder, id)
  seconds = math.max(0, math.min(seconds, (clock.now - rec.entered) / 1000000))
  scheduler.finish(t, rec, seconds, learns)
  record.unmark(rec, LANE)
  rec.charged = 0
end

local function wait_until(id, rec, due)
  tasks.move(id, rec, SCHEDULED, due)
  record.save(id, rec)
end

local function back_to_queue(id, rec, at_head)
  local t = tasks.enqueue(id, rec, at_head)
  tasks.move(id, rec, QUEUED, clock.now)
  record.save(id, rec)
  return t
end

function settle.finish(id, rec, t, seconds, result, ttl)
  let_go(id, rec, t, seconds, true)
  if result ~= '' then
    if record.has(rec, LINKED) then
      call('SET', keys.result(id), result)
    elseif ttl > 0 then
      call('SET', keys.result(id), result, 'PX', ttl)
    end
  end
  tasks.conclude(id, rec, FINISHED, 0, ttl)
  return WAS_FINISHED
end

-- `delay` in µs, or -1: no retry is wanted.
function settle.fail(id, rec, t, seconds, error, delay, reason)
  let_go(id, rec, t, seconds, true)
  if delay < 0 or rec.retries >= rec.max_retries then
    tasks.add_error(id, rec, error)
    tasks.conclude(id, rec, FAILED, reason > 0 and reason or (delay < 0 and GAVE_UP or NO_RETRIES), 0)
    return WAS_FAILED
  end
  local held = retries.hold_back(t)
  delay = delay + held
  tasks.add_error(id, rec, error, delay, held)
  rec.retries = rec.retries + 1
  stats.add('retried')
  if delay > 0 then
    wait_until(id, rec, clock.now + delay)
  else
    rec.enqueued = clock.tick()
    back_to_queue(id, rec, false)
  end
  return WAS_RETRIED
end

-- Given back unstarted: nothing is used up, and it is the next of its user again.
function settle.release(id, rec, t)
  leases.drop(rec.holder, id)
  scheduler.give_back(t, rec)
  record.unmark(rec, LANE)
  rec.charged, rec.attempt, rec.token = 0, rec.attempt - 1, NO_TOKEN
  back_to_queue(id, rec, true)
  stats.add('released')
  return WAS_RELEASED
end

function settle.snooze(id, rec, t, seconds, delay)
  let_go(id, rec, t, seconds, true)
  rec.attempt, rec.token = rec.attempt - 1, NO_TOKEN
  wait_until(id, rec, clock.now + delay)
  stats.add('snoozed')
  return WAS_SNOOZED
end

function settle.discard(id, rec, t, seconds, error, ttl)
  let_go(id, rec, t, seconds, true)
  tasks.add_error(id, rec, error)
  tasks.conclude(id, rec, CANCELED, DISCARDED, ttl)
  return WAS_CANCELED
end

-- Until when a task waits for somebody who has its function.
local function patience(rec)
  return math.max(tonumber(call('ZSCORE', keys.functions, rec.func) or 0), rec.enqueued) + conf.unknown
end

-- The worker lacks the function. The task is kept for those who have it, who find it with their next call
-- (sweep.take_back), so that it does not go round among those who lack it. Without any for a while, it is a dead letter.
function settle.pass_on(id, rec, t, error)
  leases.drop(rec.holder, id)
  scheduler.give_back(t, rec)
  record.unmark(rec, LANE)
  record.mark(rec, UNKNOWN)
  rec.charged, rec.attempt, rec.token = 0, rec.attempt - 1, NO_TOKEN
  local limit = patience(rec)
  if clock.now > limit then
    tasks.add_error(id, rec, error)
    tasks.conclude(id, rec, FAILED, NOBODY, 0)
    return WAS_FAILED
  end
  wait_until(id, rec, limit + 1)
  call('ZADD', keys.passed, clock.now, id)
  wake.one_that_has(rec.func)
  stats.add('passed_on')
  return WAS_PASSED_ON
end

-- A task that was passed on has waited so long: for nobody, unless somebody has announced its function since.
function settle.give_up_waiting(id, rec)
  local limit = patience(rec)
  if clock.now > limit then
    tasks.add_error(id, rec, tasks.make_error(rec, 'UnknownFunctionError', rec.func == '' and
      'no live worker has a TaskHandler' or 'no live worker has the function ' .. rec.func ..
      ': start one that imports the module that defines it'))
    tasks.conclude(id, rec, FAILED, NOBODY, 0)
  else
    rec.entered = limit + 1
    call('ZADD', keys.state('scheduled'), rec.entered, id)
    call('ZADD', keys.passed, 'NX', clock.now, id)
    record.save(id, rec)
  end
end

-- Its process died. A task that had begun runs alone from now on, and only crashes alone count.
function settle.crash(id, rec, t, seconds, begun, error)
  if not begun then return settle.release(id, rec, t) end
  let_go(id, rec, t, seconds, false)
  if record.has(rec, LONE) then rec.crashes = rec.crashes + 1 end
  tasks.add_error(id, rec, error ~= '' and error or tasks.make_error(rec, 'WorkerLost',
    'the worker process died or lost its lease while the task ran'), rec.crashes < CRASHES_ALONE and 0 or nil)
  rec.token = NO_TOKEN
  record.mark(rec, LONE)
  stats.add('lost')
  if rec.crashes >= CRASHES_ALONE then
    tasks.conclude(id, rec, FAILED, CRASHED, 0)
    return WAS_FAILED
  end
  back_to_queue(id, rec, true)
  return WAS_RETRIED
end

-- The code of a settle whose claim has ended: what it did if it was this one that ended it, else stale.
local function applied(rec, kind)
  if rec.state == CANCELED and record.has(rec, CANCEL) then return WAS_CANCELED end
  return APPLIED[kind] and APPLIED[kind][rec.state] or STALE
end

-- One settle as a worker sends it: kind, seconds run, and two values whose meaning is the kind's. Returns its code, and
-- the tenant if that is to be placed anew.
function settle.one(incarnation, id, token, kind, seconds, first, second)
  local rec = record.load(id)
  if not rec then
    leases.drop_orphan(incarnation, id)
    return STALE
  end
  if rec.token ~= token then return STALE end
  if rec.state ~= STARTED then return applied(rec, kind) end
  local t = tenants.get(rec.user)
  local code
  local canceled = rec.flags ~= 0 and record.has(rec, CANCEL)
  if canceled and kind ~= 'release' then
    let_go(id, rec, t, seconds, kind == 'finish')
    if kind == 'fail' then tasks.add_error(id, rec, first) end
    tasks.conclude(id, rec, CANCELED, BY_CALLER, conf.result_ttl)
    code = WAS_CANCELED
  elseif canceled then
    leases.drop(rec.holder, id)
    scheduler.give_back(t, rec)
    tasks.conclude(id, rec, CANCELED, BY_CALLER, conf.result_ttl)
    code = WAS_CANCELED
  elseif kind == 'finish' then
    code = settle.finish(id, rec, t, seconds, first, second)
  elseif kind == 'fail' then
    code = settle.fail(id, rec, t, seconds, first, second, 0)
  elseif kind == 'invalid' then
    code = settle.fail(id, rec, t, seconds, first, -1, INVALID)
  elseif kind == 'release' then
    code = settle.release(id, rec, t)
  elseif kind == 'snooze' then
    code = settle.snooze(id, rec, t, seconds, second)
  elseif kind == 'discard' then
    code = settle.discard(id, rec, t, seconds, first, second)
  elseif kind == 'unknown' then
    code = settle.pass_on(id, rec, t, first)
  else
    code = settle.crash(id, rec, t, seconds, true, first)
  end
  return code, t
end
