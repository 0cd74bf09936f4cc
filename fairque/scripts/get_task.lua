-- get_task: a task, with what belongs to it
-- KEYS  clock
-- ARGV  prefix settings id
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY record, result, progress (each or nothing), what it waits for, then the errors
local reply = {call('GET', keys.task(id)), call('GET', keys.result(id)), call('GET', keys.progress(id)),
  call('HKEYS', keys.upstream(id))}
for _, error in ipairs(call('LRANGE', keys.errors(id), 0, -1)) do reply[#reply + 1] = error end
return reply
