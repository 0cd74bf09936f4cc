-- bury_task: queued | scheduled | deferred | started -> failed: a dead letter by a caller's word
-- KEYS  clock
-- ARGV  prefix settings id why
-- FLAGS allow-oom
-- INCLUDE prelude states record clock tenants scheduler tasks leases settle wake finish_call
-- `why`: an encoded error, or ''.
-- REPLY the state
-- ERRORS FQ_NOT_FOUND, FQ_STATE it has ended
local rec = record.load(id)
if not rec then refuse('NOT_FOUND', id) end
if not TRANSITIONS[rec.state][FAILED] then
  refuse('STATE', id .. ' ' .. STATE_NAMES[rec.state] .. ' failed')
end
scheduler.advance()
local t = tenants.get(rec.user)
if rec.state == QUEUED then
  tasks.dequeue(id, rec)
elseif rec.state == STARTED then
  wake.cancel(rec.holder, id)
  leases.drop(rec.holder, id)
  scheduler.finish(t, rec, (clock.now - rec.entered) / 1000000, false)
  rec.token = NO_TOKEN
end
tasks.add_error(id, rec, why)
tasks.conclude(id, rec, FAILED, MOVED, 0)
scheduler.place(t)
wake.one_if_ready()
finish_call()
return rec.state
