-- INCLUDE clock levels tenants scheduler limits stats writes deps later
-- EXPORTS finish_call
-- The one place where a call writes back what it changed in memory.
local function finish_call()
  deps.resolve()
  if clock.continuing > 0 then later.remind() end
  scheduler.restart_if_idle()
  tenants.save()
  levels.forget_front(clock)
  writes.flush()
  limits.save()
  clock.save()
  stats.save()
end
