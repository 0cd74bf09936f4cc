-- xcom_watch: a client wants to hear when a value is pushed
-- KEYS  clock
-- ARGV  prefix settings user namespace key client ttl
-- FLAGS allow-oom
-- INCLUDE prelude keys
-- `ttl` in ms: for how long without renewal.
-- REPLY the value, or nothing
local watchers = keys.watchers('x:' .. user .. ':' .. namespace .. ':' .. key)
call('SADD', watchers, client)
call('PEXPIRE', watchers, ttl)
return call('GET', keys.xcom(user, namespace, key))
