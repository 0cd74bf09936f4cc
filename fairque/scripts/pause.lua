-- pause: the whole queue stops or goes on claiming
-- KEYS  clock
-- ARGV  prefix settings paused
-- FLAGS allow-oom
-- INCLUDE prelude keys clock wake finish_call
-- REPLY what it was
local was = clock.paused
clock.paused = tonumber(paused)
-- Also where it is found again should the clock be lost.
if paused == '1' then call('HSET', keys.meta, 'paused', paused) else call('HDEL', keys.meta, 'paused') end
wake.one_if_ready()
finish_call()
return was
