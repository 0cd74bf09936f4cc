-- cancel_workflow: its tasks: queued | scheduled | deferred -> canceled, in chunks; those that run are marked
-- KEYS  clock
-- ARGV  prefix settings id
-- FLAGS allow-oom
-- INCLUDE prelude keys clock scheduler wake workflows later continue finish_call
-- REPLY 1 it is being canceled, 0 it had ended, -1 there is no such workflow
local key = keys.workflow(id)
local state = call('HGET', key, 'state')
if not state then return -1 end
if state ~= 'running' then return 0 end
scheduler.advance()
call('HSET', key, 'cancel', 1)
call('HDEL', key, 'canceling')
later.add('x' .. id)
continue.go_on()
wake.one_if_ready()
finish_call()
return 1
