-- open: a client's first call: the schema of what is there
-- KEYS  clock
-- ARGV  prefix settings schema
-- FLAGS allow-oom
-- INCLUDE prelude keys
-- REPLY the schema found (the caller's own, if there was none)
local found = call('HGET', keys.meta, 'schema')
if not found then
  call('HSET', keys.meta, 'schema', schema)
  return schema
end
return found
