-- INCLUDE clock levels tenants scheduler limits stats writes
-- EXPORTS finish_call
-- The one place where a call writes back what it changed in memory.
local function finish_call()
  scheduler.restart_if_idle()
  tenants.save()
  levels.forget_front(clock)
  writes.flush()
  limits.save()
  clock.save()
  stats.save()
end
