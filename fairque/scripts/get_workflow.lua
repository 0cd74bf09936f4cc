-- get_workflow: a workflow as it is counted
-- KEYS  clock
-- ARGV  prefix settings id
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY fields and values; none if there is no such workflow
return call('HGETALL', keys.workflow(id))
