-- INCLUDE prelude keys record clock
-- EXPORTS tenants
-- The fair scheduler: start-time fair queueing over tenants (docs/internals.md; tests/model/reference.py is the same
-- algorithm in Python, and a property test compares every decision).
--
-- A tenant is read on first use, changed in memory and written once. `counted_weight` and `counted_running` are exactly
-- what it contributes to the clock's sums now: place() takes the old contribution out and puts the new one in.
local TENANT = '>BdddI4I4I4I4I4I4I4I4I4I4ddd'
local SPARSE, READY, PAUSED, AHEAD = 1, 2, 4, 8
local TRUSTED = 8
local NEVER_SEEN = 1
local tenants = {loaded = {}, order = {}}

local function default_tenant(user)
  local t = {flags = 0, tag = 0, floor = 0, generation = clock.generation, weight = 1000, cap = 0, counted_weight = 0,
    counted_running = 0, critical = 0, normal = 0, running = 0, finished = 0, failed = 0, canceled = 0, waited = 0,
    served = 0, since = 0}
  local policy = call('HGET', keys.policies, user)
  if policy then
    local fields = cmsgpack.unpack(policy)
    t.weight, t.cap = fields.weight, fields.max_concurrency or 0
    t.paused = fields.paused
  end
  return t
end

function tenants.get(user)
  local t = tenants.loaded[user]
  if t then return t end
  local data = call('GET', keys.user(user))
  if data then
    t = {}
    t.flags, t.tag, t.floor, t.generation, t.weight, t.cap, t.counted_weight, t.counted_running, t.critical, t.normal,
      t.running, t.finished, t.failed, t.canceled, t.waited, t.served, t.since = struct.unpack(TENANT, data)
    t.paused = bit.band(t.flags, PAUSED) ~= 0
    if t.generation ~= clock.generation then
      t.generation, t.tag, t.floor = clock.generation, 0, 0
    end
  else
    t = default_tenant(user)
  end
  t.sparse = bit.band(t.flags, SPARSE) ~= 0
  t.ready = bit.band(t.flags, READY) ~= 0
  t.ahead = bit.band(t.flags, AHEAD) ~= 0
  t.user = user
  -- What the sorted sets hold of it now.
  t.placed, t.in_sparse = t.tag, t.ready and t.sparse
  tenants.loaded[user] = t
  tenants.order[#tenants.order + 1] = t
  return t
end

function tenants.save()
  for _, t in ipairs(tenants.order) do
    local flags = (t.sparse and SPARSE or 0) + (t.ready and READY or 0) + (t.paused and PAUSED or 0)
      + (t.ahead and AHEAD or 0)
    local data = struct.pack(TENANT, flags, t.tag, t.floor, t.generation, t.weight, t.cap, t.counted_weight,
      t.counted_running, t.critical, t.normal, t.running, t.finished, t.failed, t.canceled, t.waited, t.served, t.since)
    if t.critical + t.normal + t.running == 0 then
      -- Idle: its counters and its tag go together. A tag at or below the mark changes no decision, and one beyond
      -- it is a debt that a fresh name would not have either.
      call('SET', keys.user(t.user), data, 'PX', conf.user_ttl)
    else
      call('SET', keys.user(t.user), data)
    end
  end
end

-- What a task is charged when claimed: its cost, or what this tenant's tasks of that function use to take.
local function estimate_of(t, func)
  local found = call('HGET', keys.costs(t.user), func)
  if found then return struct.unpack('>dd', found) end
  return 0, 0
end

local function newcomer_of(func)
  return tonumber(call('HGET', keys.estimates, func) or NEVER_SEEN)
end

function tenants.charge_of(t, func, cost)
  if not conf.by_time then return cost / 1000 end
  local estimate, measured = estimate_of(t, func)
  if measured >= TRUSTED then return estimate end
  return math.max(estimate, newcomer_of(func))
end

-- The measured run time of one task enters the averages.
local function learn(t, func, seconds)
  local estimate, measured = estimate_of(t, func)
  if measured < TRUSTED then
    local newcomer = newcomer_of(func)
    newcomer = newcomer + 0.1 * (seconds - newcomer)
    call('HSET', keys.estimates, func, string.format('%.17g', newcomer))
  end
  measured = measured + 1
  estimate = estimate + math.max(0.3, 1 / measured) * (seconds - estimate)
  call('HSET', keys.costs(t.user), func, struct.pack('>dd', estimate, measured))
  call('PEXPIRE', keys.costs(t.user), conf.user_ttl)
end

-- The task that a claim would take next.
local function head_of(t)
  if t.critical > 0 then
    local id = call('LINDEX', keys.critical(t.user), 0)
    if id then return id end
  end
  return call('ZRANGE', keys.normal(t.user), 0, 0)[1]
end

local function next_charge(t)
  local id = head_of(t)
  local rec = id and record.load(id)
  if not rec then return conf.by_time and NEVER_SEEN or 1 end
  return tenants.charge_of(t, rec.func, rec.cost)
end

local function contribute(t, weight, running)
  clock.weight = clock.weight + weight - t.counted_weight
  clock.running = clock.running + running - t.counted_running
  t.counted_weight, t.counted_running = weight, running
end

-- After each move of virtual time: those whom it passed no longer count.
local function drop_passed()
  while true do
    local first = call('ZRANGE', keys.ahead, 0, 0, 'WITHSCORES')
    if not first[1] or tonumber(first[2]) > clock.virtual then return end
    local t = tenants.get(first[1])
    call('ZREM', keys.ahead, first[1])
    t.ahead = false
    contribute(t, 0, 0)
  end
end

local function put(set, t, wanted, had, tag_moved)
  if wanted then
    if not had or tag_moved then call('ZADD', set, t.tag, t.user) end
  elseif had then
    call('ZREM', set, t.user)
  end
end

-- Every change that can open or close a tenant ends here. Opening is the one place that raises a tag: nobody gains by
-- idling, pausing, being capped or coming back, and nobody enters far behind either.
function tenants.place(t)
  local claimable = t.critical + t.normal > 0 and not t.paused and (t.cap == 0 or t.running < t.cap)
  local was_ready, was_sparse, was_ahead = t.ready, t.in_sparse, t.ahead
  if claimable and not t.ready then
    clock.settle((clock.front()))
    drop_passed()
    local entry = math.min(clock.virtual, clock.mark + next_charge(t) / (t.weight / 1000))
    if entry > t.tag then t.tag = entry end
    t.floor = entry
    t.since = clock.now
  end
  t.ready = claimable
  t.ahead = not claimable and t.running > 0 and t.tag > clock.virtual
  local counted = t.ready or t.ahead
  contribute(t, counted and t.weight or 0, counted and t.running or 0)
  local moved = t.tag ~= t.placed
  put(keys.ready_all, t, t.ready, was_ready, moved)
  t.in_sparse = t.ready and t.sparse
  put(keys.ready_sparse, t, t.in_sparse, was_sparse, moved)
  put(keys.ahead, t, t.ahead, was_ahead, moved)
  t.placed = t.tag
end

-- Virtual time moves by the service given to counted tenants over their weight, in steps that drop each one whom it
-- passes; at most two heartbeats at once.
function tenants.advance()
  if conf.by_time then
    local left = math.min(math.max(0, clock.now - clock.at), HEARTBEATS * conf.lease / 3) / 1000000
    while left > 0 and clock.weight > 0 and clock.running > 0 do
      local rate = clock.running / (clock.weight / 1000)
      local first = call('ZRANGE', keys.ahead, 0, 0, 'WITHSCORES')
      local passed = first[1] and tonumber(first[2]) or math.huge
      local step = math.min(left, (passed - clock.virtual) / rate)
      if step < left then clock.virtual = passed else clock.virtual = clock.virtual + rate * step end
      left = left - step
      drop_passed()
    end
  end
  clock.at = clock.now
  clock.settle((clock.front()))
  drop_passed()
end

-- Moves a tenant's tag by an amount of service; a refund stops at the floor.
function tenants.charge(t, amount)
  local tag = t.tag + amount / (t.weight / 1000)
  if amount > 0 then t.tag = tag else t.tag = math.min(t.tag, math.max(tag, t.floor)) end
end

-- A task enters the tenant's queue as by a push (call before counting it).
function tenants.arrive(t)
  if t.critical + t.normal + t.running == 0 then t.sparse = t.tag <= clock.mark end
end

-- Among some users only: the one with the smallest tag. The lane is for those who serve all.
local function choose_among(users)
  local best, best_tag
  local tags = call('ZMSCORE', keys.ready_all, unpack(users))
  for i, user in ipairs(users) do
    local tag = tags[i] and tonumber(tags[i])
    if tag and (not best or tag < best_tag or (tag == best_tag and user < best)) then best, best_tag = user, tag end
  end
  clock.next_credit = nil
  return best and tenants.get(best), false
end

-- The tenant that the next claim serves, and whether through the sparse lane; nil if nobody is ready.
function tenants.choose(only)
  if only then return choose_among(only) end
  local _, user = clock.front()
  if not user then return nil end
  local share, slots = conf.sparse_share, math.max(1, clock.slots)
  clock.next_credit = math.min(clock.credit + share, math.max(1, share * slots))
  if clock.next_credit >= 1 and clock.lane < math.max(1, math.floor(share * slots)) then
    local first = call('ZRANGE', keys.ready_sparse, 0, 0)[1]
    if first then return tenants.get(first), true end
  end
  return tenants.get(user), false
end

-- A claim of one task: returns what it is charged.
function tenants.start(t, rec, by_lane)
  clock.credit = clock.next_credit or clock.credit
  if by_lane then
    clock.lane = clock.lane + 1
    clock.credit = clock.credit - 1
  end
  t.sparse = false
  local charge = tenants.charge_of(t, rec.func, rec.cost)
  if not conf.by_time and clock.weight > 0 then
    clock.virtual = clock.virtual + charge / (clock.weight / 1000)
  end
  t.tag = t.tag + charge / (t.weight / 1000)
  t.running = t.running + 1
  clock.all_running = clock.all_running + 1
  t.since = clock.now
  tenants.place(t)
  drop_passed()
  clock.settle((clock.front()))
  drop_passed()
  return charge
end

local function leave(t, by_lane)
  t.running = math.max(0, t.running - 1)
  clock.all_running = math.max(0, clock.all_running - 1)
  if by_lane then clock.lane = math.max(0, clock.lane - 1) end
end

-- A task ended after `seconds` of run time: the charge is corrected to it. `learns` unless it was cut short.
function tenants.finish(t, rec, seconds, learns)
  if conf.by_time then
    tenants.charge(t, seconds - rec.charged)
    if learns then learn(t, rec.func, seconds) end
  end
  t.served = t.served + seconds
  leave(t, record.has(rec, LANE))
end

-- Given back unstarted: the charge returns to the tenant; virtual time stays.
function tenants.give_back(t, rec)
  tenants.charge(t, -rec.charged)
  leave(t, record.has(rec, LANE))
end

-- When nothing is ready, ahead or running, virtual time starts again at 0, so that tags cannot grow without limit.
function tenants.restart_if_idle()
  if clock.all_running == 0 and clock.weight == 0 then
    clock.virtual, clock.mark, clock.generation = 0, 0, clock.generation + 1
    for _, t in ipairs(tenants.order) do
      t.tag, t.floor, t.generation, t.placed = 0, 0, clock.generation, 0
    end
  end
end
