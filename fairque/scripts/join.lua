-- join: a new incarnation takes a lease
-- KEYS  clock
-- ARGV  prefix settings incarnation slots entry fields functions
-- FLAGS allow-oom
-- INCLUDE prelude keys clock scheduler finish_call
-- `entry`: which worker entry it serves as ('' for all). `fields`: packed map of what it tells about itself. `functions`: packed list of the names that it can run.
-- REPLY the server's time in µs, as text
-- One that is alive may join again, as another entry or with more slots.
local known = call('ZSCORE', keys.workers, incarnation)
local before = known and tonumber(call('HGET', keys.worker(incarnation), 'slots') or 0) or 0
scheduler.advance()
if tonumber(slots) ~= before then
  clock.slots = clock.slots + tonumber(slots) - before
  scheduler.refit()
end
call('ZADD', keys.workers, clock.now + conf.lease, incarnation)
call('HSET', keys.worker(incarnation), 'slots', slots, 'entry', entry, 'fields', fields, 'functions', functions, 'started',
  string.format('%.17g', clock.now))
for _, name in ipairs(cmsgpack.unpack(functions)) do
  call('ZADD', keys.functions, clock.now, name)
end
finish_call()
return string.format('%.17g', clock.now)
