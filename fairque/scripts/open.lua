-- open: a client's first call: the schema of what is there
-- KEYS  clock
-- ARGV  prefix settings schema serves
-- FLAGS allow-oom
-- INCLUDE prelude keys
-- `serves`: 1 if the caller will serve the queue, and not only push or look.
-- REPLY the schema found (the caller's own, if there was none)
-- ERRORS FQ_EVICTION a full server would throw tasks away
if serves == '1' then
  -- Who may not ask is not refused.
  local told = redis.pcall('INFO', 'memory')
  local policy = type(told) == 'string' and string.match(told, 'maxmemory_policy:([%w-]+)') or 'noeviction'
  if policy ~= 'noeviction' then refuse('EVICTION', policy) end
end
local found = call('HGET', keys.meta, 'schema')
if not found then
  call('HSET', keys.meta, 'schema', schema)
  return schema
end
return found
