-- cancel: queued | scheduled | deferred -> canceled; a started task is marked
-- KEYS  clock
-- ARGV  prefix settings id
-- FLAGS allow-oom
-- INCLUDE prelude states record clock scheduler actions finish_call
-- REPLY 1 canceled, 2 running: asked to stop, 0 it had ended; then the state
-- ERRORS FQ_NOT_FOUND
local rec = record.load(id)
if not rec then refuse('NOT_FOUND', id) end
if rec.state ~= STARTED and not TRANSITIONS[rec.state][CANCELED] then return {0, rec.state} end
scheduler.advance()
local code = actions.cancel(id, rec)
finish_call()
return {code, rec.state}
