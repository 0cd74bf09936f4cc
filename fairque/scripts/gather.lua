-- gather: started -> finished | failed: the tasks that a mapped task made have all ended
-- KEYS  clock
-- ARGV  prefix settings id token whole result why ttl
-- FLAGS allow-oom
-- INCLUDE prelude states keys record clock tenants scheduler tasks leases settle wake finish_call
-- `whole`: 1 if none of their results is missing; else `why` is an encoded error, and `result` what there is.
-- REPLY 1 done, 0 the claim is no longer the task's current one
local rec = record.load(id)
if not rec or rec.token ~= token then return 0 end
if rec.state ~= STARTED then return 1 end
scheduler.advance()
local t = tenants.get(rec.user)
if whole == '1' then
  settle.finish(id, rec, t, 0, result, tonumber(ttl))
else
  call('SET', keys.result(id), result)
  settle.fail(id, rec, t, 0, why, -1, DEPENDENCY)
end
scheduler.place(t)
wake.one_if_ready()
finish_call()
return 1
