-- INCLUDE prelude keys clock policies window stats
-- EXPORTS retries
-- How many of a user's starts may be retries (UserPolicy.retry_budget). Retries take turns at the rate that the budget
-- allows: the share of all its starts in the last half to whole minute (lib/window.lua), or the minimum if that is more.
-- It is the generic cell rate algorithm: `full` is when the budget would be whole again, and so many turns before that
-- may be taken at once. A retry beyond them is put off to its own turn. Who retries nothing, or has no budget, has no
-- state here, and claims neither read nor write any.
local AT_ONCE = 10
local retries = {}

-- For one more retry: by how many µs it is put off.
function retries.hold_back(t)
  if t.retry_budget == nil then
    local share, minimum = policies.retry_budget(t.user)
    t.retry_budget, t.retry_minimum = share or false, minimum
  end
  if not t.retry_budget then return 0 end
  window.roll(t)
  local rate = math.max(t.retry_minimum, t.retry_budget * (t.claims_now + t.claims_before) / window.seconds())
  local interval = math.ceil(1000000 / rate)
  local key = keys.retries(t.user)
  local stored = redis.pcall('GET', key)
  local full = math.max(clock.now, type(stored) == 'string' and tonumber(stored) or 0)
  call('SET', key, string.format('%.17g', full + interval), 'PX', math.ceil((full + interval - clock.now) / 1000))
  local held = math.max(0, full - (AT_ONCE - 1) * interval - clock.now)
  if held > 0 then stats.add('held_back') end
  return held
end
