-- cancel: queued | scheduled | deferred -> canceled; a started task is marked
-- KEYS  clock
-- ARGV  prefix settings id
-- FLAGS allow-oom
-- INCLUDE prelude states record clock tenants scheduler tasks leases wake finish_call
-- REPLY 1 canceled, 2 running: asked to stop, 0 it had ended; then the state
-- ERRORS FQ_NOT_FOUND
local rec = record.load(id)
if not rec then refuse('NOT_FOUND', id) end
if not (rec.state == QUEUED or rec.state == SCHEDULED or rec.state == DEFERRED or rec.state == STARTED) then
  return {0, rec.state}
end
scheduler.advance()
local code = 1
if rec.state == STARTED then
  code = 2
  if not record.has(rec, CANCEL) then
    record.mark(rec, CANCEL)
    record.save(id, rec)
    leases.mark_cancel(rec.holder, id)
    wake.cancel(rec.holder, id)
  end
else
  local t = tenants.get(rec.user)
  if rec.state == QUEUED then tasks.dequeue(id, rec) end
  tasks.conclude(id, rec, CANCELED, BY_CALLER, conf.result_ttl)
  scheduler.place(t)
end
finish_call()
return {code, rec.state}
