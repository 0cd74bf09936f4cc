-- xcom_push: a value for other tasks of the user
-- KEYS  clock
-- ARGV  prefix settings user namespace key value ttl
-- FLAGS
-- INCLUDE prelude keys clock wake
-- `ttl` in ms.
-- REPLY 1
local index = keys.xcoms(user, namespace)
local ms = tonumber(ttl)
call('SET', keys.xcom(user, namespace, key), value, 'PX', ttl)
call('ZREMRANGEBYSCORE', index, '-inf', clock.now)
call('ZADD', index, string.format('%.17g', clock.now + ms * 1000), key)
if call('PTTL', index) < ms then call('PEXPIRE', index, ms) end
local subject = 'x:' .. user .. ':' .. namespace .. ':' .. key
wake.watchers(subject, 's' .. subject .. '\n' .. string.char(5, 0, 0, 0))
return 1
