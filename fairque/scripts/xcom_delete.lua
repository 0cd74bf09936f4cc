-- xcom_delete: values -> gone; without keys some of a namespace
-- KEYS  clock
-- ARGV  prefix settings user namespace names...
-- FLAGS allow-oom
-- INCLUDE prelude keys
-- REPLY how many were there, how many are left in the namespace
local CHUNK = 500
local index = keys.xcoms(user, namespace)
local some = {}
for i = NAMES, #ARGV do some[#some + 1] = ARGV[i] end
if not some[1] then some = call('ZRANGE', index, 0, CHUNK - 1) end
local gone = 0
for _, key in ipairs(some) do gone = gone + call('UNLINK', keys.xcom(user, namespace, key)) end
if some[1] then call('ZREM', index, unpack(some)) end
return {gone, call('ZCARD', index)}
