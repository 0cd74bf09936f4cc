-- INCLUDE prelude keys
-- EXPORTS costs
-- What a task is charged when claimed: its cost, or what this tenant's tasks of that function use to take.
local TRUSTED = 8
local NEVER_SEEN = 1
local costs = {}

local function estimate_of(t, func)
  local found = redis.pcall('HGET', keys.costs(t.user), func)
  if type(found) == 'string' then return struct.unpack('>dd', found) end
  return 0, 0
end

local function newcomer_of(func)
  return tonumber(call('HGET', keys.estimates, func) or NEVER_SEEN)
end

function costs.charge_of(t, func, cost)
  if not conf.by_time then return cost / 1000 end
  local estimate, measured = estimate_of(t, func)
  if measured >= TRUSTED then return estimate end
  return math.max(estimate, newcomer_of(func))
end

-- The measured run time of one task enters the averages.
function costs.learn(t, func, seconds)
  local estimate, measured = estimate_of(t, func)
  if measured < TRUSTED then
    local newcomer = newcomer_of(func)
    newcomer = newcomer + 0.1 * (seconds - newcomer)
    call('HSET', keys.estimates, func, string.format('%.17g', newcomer))
  end
  measured = measured + 1
  estimate = estimate + math.max(0.3, 1 / measured) * (seconds - estimate)
  local packed = struct.pack('>dd', estimate, measured)
  if type(redis.pcall('HSET', keys.costs(t.user), func, packed)) == 'table' then
    -- Somebody has put something else there: averages are soon measured again.
    call('DEL', keys.costs(t.user))
    call('HSET', keys.costs(t.user), func, packed)
  end
  call('PEXPIRE', keys.costs(t.user), conf.user_ttl)
end

