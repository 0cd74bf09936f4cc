-- commit: what was staged is a workflow from now on: new -> queued | scheduled | deferred, in chunks
-- KEYS  clock
-- ARGV  prefix settings workflow name output op total counts...
-- FLAGS
-- INCLUDE prelude keys record clock tenants scheduler workflows later continue finish_call store
-- Counts: user, how many of the tasks are its.
-- REPLY 1 done; 0 the stage is not whole: it was left too long; or 3 and a quota that this is over, as push tells it
local key = keys.workflow(workflow)
local known = call('HGET', key, 'op')
if known then return {known == op and 1 or 9, workflow} end
if call('LLEN', keys.stage(workflow)) ~= tonumber(total) then return {0, ''} end
for i = COUNTS, #ARGV, 2 do
  local t = tenants.get(ARGV[i])
  local more = {}
  local one = t
  while one do
    more[one] = tonumber(ARGV[i + 1]) - 1
    one = one.group
  end
  local quota = tenants.over_quota(t, more)
  if quota then return {3, quota} end
end
scheduler.advance()
workflows.create(workflow, name, output, op, tonumber(total))
call('PERSIST', keys.stage(workflow))
later.add('s' .. workflow)
continue.go_on()
finish_call()
return {1, ''}
