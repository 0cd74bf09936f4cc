-- INCLUDE prelude keys clock levels
-- EXPORTS window
-- BEGIN window.begin()
-- What each tenant got in the last half to whole minute (lib/levels.lua), and the three lists by which tenants are shown:
-- by backlog, service and mean wait. A list is only told of changes that matter, an eighth of the value; zero is in none.
local WINDOW = 30000000
local window = {}
local bucket

function window.begin()
  bucket = math.floor(clock.now / WINDOW)
end

-- A tenant's own buckets: claims, service and seconds waited.
function window.roll(t)
  if bucket == t.window then return end
  if bucket == t.window + 1 then
    t.claims_before, t.service_before, t.waits_before = t.claims_now, t.service_now, t.waits_now
  else
    t.claims_before, t.service_before, t.waits_before = 0, 0, 0
  end
  t.window, t.claims_now, t.service_now, t.waits_now = bucket, 0, 0, 0
end

function window.claimed(t, waited, service)
  if t.window ~= bucket then window.roll(t) end
  t.claims_now, t.waits_now, t.service_now = t.claims_now + 1, t.waits_now + waited, t.service_now + service
  local level = t.level
  if level.window ~= bucket then levels.roll(level) end
  level.served_now = level.served_now + service
end

-- Service in the units of the queue's fairness: cost when claimed, or seconds when ended.
function window.served(t, amount)
  window.roll(t)
  t.service_now = t.service_now + amount
  if t.level.window ~= bucket then levels.roll(t.level) end
  t.level.served_now = t.level.served_now + amount
end

-- How long the two buckets have lasted.
function window.seconds()
  return (clock.now % WINDOW + WINDOW) / 1000000
end

-- A number as one byte: an eighth apart, from 2 on.
local function rough(value)
  if value < 2 then return 0 end
  local part, exponent = math.frexp(value)
  return math.min(255, (exponent - 2) * 8 + math.floor(part * 16) - 7)
end

local function list(key, user, value, before)
  local now = rough(value)
  if now == before then return now end
  if now == 0 then call('ZREM', key, user) else call('ZADD', key, now, user) end
  return now
end

-- Seconds count in thousandths, so that short ones are told apart.
function window.list(t)
  t.rough_backlog = list(keys.by_backlog, t.user, t.critical + t.normal + t.limited, t.rough_backlog)
  t.rough_service = list(keys.by_service, t.user, t.served * 1000, t.rough_service)
  local claims = t.claims_now + t.claims_before
  local wait = claims > 0 and (t.waits_now + t.waits_before) / claims or 0
  t.rough_wait = list(keys.by_wait, t.user, wait * 1000, t.rough_wait)
end
