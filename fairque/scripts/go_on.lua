-- go_on: what earlier calls have left to do, as much of it as one call can
-- KEYS  clock
-- ARGV  prefix settings
-- FLAGS allow-oom
-- INCLUDE prelude clock scheduler wake continue finish_call
-- REPLY how many pieces are left
if clock.continuing == 0 then return 0 end
scheduler.advance()
continue.go_on()
wake.one_if_ready()
finish_call()
return clock.continuing
