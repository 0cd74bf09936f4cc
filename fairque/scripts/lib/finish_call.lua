-- INCLUDE clock tenants stats
-- EXPORTS finish_call
-- The one place where a call writes back what it changed in memory.
local function finish_call()
  tenants.restart_if_idle()
  tenants.save()
  clock.save()
  stats.save()
end
