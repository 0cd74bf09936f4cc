-- INCLUDE prelude keys states record clock tenants scheduler tasks leases letters erase stats wake links
-- EXPORTS actions
-- What callers do to tasks, to one by its id or to many by a filter.
local actions = {}

-- queued | scheduled | deferred -> canceled; a started task is marked. Returns 1 canceled, 2 asked to stop, 0 it had ended.
function actions.cancel(id, rec)
  if rec.state == STARTED then
    if not record.has(rec, CANCEL) then
      record.mark(rec, CANCEL)
      record.save(id, rec)
      leases.mark_cancel(rec.holder, id)
      wake.cancel(rec.holder, id)
    end
    return 2
  end
  if not TRANSITIONS[rec.state][CANCELED] then return 0 end
  local t = tenants.get(rec.user)
  if rec.state == QUEUED then tasks.dequeue(id, rec) end
  tasks.conclude(id, rec, CANCELED, BY_CALLER, conf.result_ttl)
  scheduler.place(t)
  return 1
end

-- failed | canceled -> queued | deferred: a new run. Returns 1, or minus the state that does not allow it.
function actions.requeue(id, rec)
  if not (rec.state == FAILED or rec.state == CANCELED) then return -rec.state end
  if rec.state == FAILED then letters.take_out(id, rec.user) end
  rec.run, rec.attempt, rec.retries, rec.crashes, rec.reason = rec.run + 1, 0, 0, 0, 0
  rec.flags = bit.band(rec.flags, WATCHED + UNDER_LIMITER + LINKED + ERRORS)
  rec.token, rec.holder, rec.enqueued, rec.expires = NO_TOKEN, NO_HOLDER, clock.tick(), 0
  call('PERSIST', keys.task(id))
  if record.has(rec, ERRORS) then call('PERSIST', keys.errors(id)) end
  call('DEL', keys.result(id), keys.progress(id))
  if record.has(rec, LINKED) and links.again(id, rec) then
    tasks.move(id, rec, DEFERRED, rec.enqueued)
    record.save(id, rec)
  else
    local t = tasks.enqueue(id, rec, false)
    tasks.move(id, rec, QUEUED, rec.enqueued)
    record.save(id, rec)
    scheduler.place(t)
  end
  stats.add('requeued')
  return 1
end

-- Any state but started -> gone. Returns 1 deleted, 0 not there, -1 it is running. `rec` may be nil.
function actions.delete(id, rec)
  if not rec then return erase(id, nil) end
  if rec.state == STARTED then return -1 end
  if rec.state == FAILED then
    letters.take_out(id, rec.user)
  elseif TRANSITIONS[rec.state][CANCELED] then -- it waits; a user whose tasks have ended need not be read
    local t = tenants.get(rec.user)
    if rec.state == QUEUED then tasks.dequeue(id, rec) else tenants.count(t, 'delayed', -1) end
    scheduler.place(t)
    if record.has(rec, LINKED) then tasks.tell_of(id, 0, 0) end
  end
  stats.add('deleted')
  return erase(id, rec)
end
