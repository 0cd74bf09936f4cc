-- join: a new incarnation takes a lease
-- KEYS  clock
-- ARGV  prefix settings incarnation slots fields functions
-- FLAGS allow-oom
-- INCLUDE prelude keys clock finish_call
-- `fields`: packed map of what it tells about itself. `functions`: packed list of the names that it can run.
-- REPLY the server's time in µs, as text
local known = call('ZSCORE', keys.workers, incarnation)
if not known then clock.slots = clock.slots + tonumber(slots) end
call('ZADD', keys.workers, clock.now + conf.lease, incarnation)
call('HSET', keys.worker(incarnation), 'slots', slots, 'fields', fields, 'functions', functions, 'started',
  string.format('%.17g', clock.now))
for _, name in ipairs(cmsgpack.unpack(functions)) do
  call('ZADD', keys.functions, clock.now, name)
end
finish_call()
return string.format('%.17g', clock.now)
