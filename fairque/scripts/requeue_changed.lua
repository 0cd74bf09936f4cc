-- requeue_changed: failed | canceled -> queued: a new run under the same id, with other arguments
-- KEYS  clock
-- ARGV  prefix settings id entered body
-- FLAGS
-- INCLUDE prelude keys record clock scheduler actions wake finish_call
-- `entered`: since when it is in the state in which the caller has seen it. `body`: what stands behind the names from now on.
-- REPLY 1 queued, 0 not there, -1 it has changed since, or minus its state
local rec = record.load_whole(id)
if not rec then return 0 end
if rec.state == FAILED or rec.state == CANCELED then
  if rec.entered ~= tonumber(entered) then return -1 end
else
  return -rec.state
end
scheduler.advance()
call('SET', keys.task(id), string.sub(rec.data, 1, record.body_at(rec)) .. body)
local code = actions.requeue(id, rec)
wake.one_if_ready()
finish_call()
return code
