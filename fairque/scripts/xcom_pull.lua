-- xcom_pull: a value that was pushed
-- KEYS  clock
-- ARGV  prefix settings user namespace key
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY the value, or nothing
return call('GET', keys.xcom(user, namespace, key))
