-- INCLUDE prelude keys clock policies levels
-- EXPORTS limits
-- BEGIN limits.begin()
-- Named limiters, which tasks of several tenants share, and the tokens of tenants and limiters alike: the generic cell
-- rate algorithm (ITU-T I.371). `full` is when the bucket would be full again; a task may start from `full` - `tau` on,
-- and what it takes beyond the bucket is a debt, so that the rate is exact whatever tasks cost.
--
-- `blocked` holds who has no other work than under a closed limiter. When it opens, `parked` calls it back: an entry
-- beside those of tenants, under its name after two colons.
local LIMITER = '>I4I4dddddB'
local PERMITS = 8
local limits = {}

function limits.begin()
  limits.loaded, limits.order = {}, {}
end

-- Nobody uses it, or waits for it: all begin anew.
local function is_unused(limiter)
  return limiter.running == 0 and not limiter.parked and limiter.full <= clock.now
end

local function read(name)
  local limiter = {name = name}
  local data = redis.pcall('GET', keys.limiter(name))
  if type(data) == 'string' then
    limiter.cap, limiter.running, limiter.full, limiter.interval, limiter.tau, limiter.virtual, limiter.at,
      limiter.is_parked = struct.unpack(LIMITER, data)
    limiter.parked = limiter.is_parked == 1 and limiter.at or nil
    if is_unused(limiter) then limiter.virtual, limiter.begins = 0, true end
  else
    local fields = policies.of_limiter(name)
    limiter.cap, limiter.running, limiter.full, limiter.virtual = fields.max_concurrency or 0, 0, 0, 0
    limiter.begins = true
    limiter.interval, limiter.tau = policies.pace(fields)
  end
  return limiter
end

-- As it is stored, for those who only look.
function limits.peek(name)
  return limits.loaded[name] or read(name)
end

function limits.get(name)
  local limiter = limits.loaded[name]
  if limiter then return limiter end
  limiter = read(name)
  if limiter.begins then call('DEL', keys.limiter_tags(name)) end
  limits.loaded[name] = limiter
  limits.order[#limits.order + 1] = limiter
  return limiter
end

function limits.save()
  for _, limiter in ipairs(limits.order) do
    if is_unused(limiter) then
      -- As good as new: its policy says the rest.
      call('DEL', keys.limiter(limiter.name), keys.limiter_tags(limiter.name))
    else
      call('SET', keys.limiter(limiter.name), struct.pack(LIMITER, limiter.cap, limiter.running, limiter.full,
        limiter.interval, limiter.tau, limiter.virtual, limiter.parked or 0, limiter.parked and 1 or 0))
    end
  end
end

-- Other limits from now on.
function limits.set(limiter, fields)
  limiter.cap = fields.max_concurrency or 0
  limits.pace(limiter, fields)
  limits.call_back(limiter)
end

-- From when on the next task may start.
function limits.earliest(bucket)
  return bucket.full - bucket.tau
end

function limits.take(bucket, cost)
  if bucket.interval > 0 then bucket.full = math.max(bucket.full, clock.now) + cost / 1000 * bucket.interval end
end

function limits.give_back(bucket, cost)
  if bucket.interval > 0 then bucket.full = bucket.full - cost / 1000 * bucket.interval end
end

-- Another rate. Without any, nothing is owed.
function limits.pace(bucket, fields)
  bucket.interval, bucket.tau = policies.pace(fields)
  if bucket.interval == 0 then bucket.full = 0 end
end

local function has_token(limiter)
  return limiter.interval == 0 or limits.earliest(limiter) <= clock.now
end

function limits.open(limiter)
  return (limiter.cap == 0 or limiter.running < limiter.cap) and has_token(limiter)
end

-- When it is to be looked at again; nil: not by time.
function limits.park(limiter, at)
  if at == limiter.parked then return end
  if at then
    call('ZADD', keys.parked, string.format('%.17g', at), '::' .. limiter.name)
  else
    call('ZREM', keys.parked, '::' .. limiter.name)
  end
  limiter.parked = at
end

-- A tenant's place among those who share a limiter: start-time fair queueing over what each started under it. (By their
-- tags it would not do: who comes back enters at virtual time, as all who wait here do, and the same one would be first.)
local function place_of(limiter, user)
  return math.max(tonumber(call('ZSCORE', keys.limiter_tags(limiter.name), user) or 0), limiter.virtual)
end

-- A tenant's only work is under this limiter, which is closed.
function limits.block(limiter, user)
  call('ZADD', keys.blocked(limiter.name), place_of(limiter, user), user)
  if not has_token(limiter) then
    limits.park(limiter, limits.earliest(limiter))
  elseif limits.open(limiter) then
    limits.park(limiter, clock.now)
  end
end

-- Whether nobody who waits for the limiter had less of it.
function limits.is_next(limiter, user)
  local waiting = call('ZRANGE', keys.blocked(limiter.name), 0, 1, 'WITHSCORES')
  local at = waiting[1] == user and 3 or 1
  return not waiting[at] or not levels.before(tonumber(waiting[at + 1]), waiting[at], place_of(limiter, user), user)
end

-- One of its tasks ended, or its limits are others: who waits for it is called back with the next claim.
function limits.call_back(limiter)
  if call('EXISTS', keys.blocked(limiter.name)) == 1 then limits.park(limiter, clock.now) end
end

-- Those who come back now, who had least of it first: as many as it has permits, the others with the next call. `place`: how.
function limits.unblock(limiter, place)
  local blocked = keys.blocked(limiter.name)
  if call('EXISTS', blocked) == 0 then
    return limits.park(limiter, nil)
  end
  if not limits.open(limiter) then
    return limits.park(limiter, not has_token(limiter) and limits.earliest(limiter) or nil)
  end
  limits.park(limiter, nil)
  local permits = limiter.cap > 0 and limiter.cap - limiter.running or PERMITS
  if limiter.interval > 0 then
    permits = math.min(permits, math.floor((clock.now - limits.earliest(limiter)) / limiter.interval) + 1)
  end
  local popped = call('ZPOPMIN', blocked, permits)
  for i = 1, #popped, 2 do place(popped[i]) end
  limits.call_back(limiter)
end

function limits.start(name, t, cost)
  local limiter = limits.get(name)
  limiter.running = limiter.running + 1
  limits.take(limiter, cost)
  limiter.virtual = place_of(limiter, t.user)
  local tags = keys.limiter_tags(name)
  call('ZADD', tags, limiter.virtual + cost / 1000 / (t.weight / 1000), t.user)
  -- Who is not ahead needs no tag.
  call('ZREMRANGEBYSCORE', tags, '-inf', string.format('%.17g', limiter.virtual))
end

function limits.stop(name)
  local limiter = limits.get(name)
  limiter.running = math.max(0, limiter.running - 1)
  limits.call_back(limiter)
end
