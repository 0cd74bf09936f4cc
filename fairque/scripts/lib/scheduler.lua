-- INCLUDE prelude keys record clock levels limits assigned window costs tenants
-- EXPORTS scheduler
-- BEGIN scheduler.begin()
-- The fair scheduler: start-time fair queueing over tenants (docs/fairness.md; tests/model/tenants.py is the same
-- algorithm in Python, and a property test compares every decision). place() is the one way into the ready sets and out
-- of them; choose() says whose turn it is; start(), finish() and give_back() move tags.
local UNPARK = 32
local LOST = -1 -- since when a record says that its owner is parked, if it does not and so would never leave
local scheduler = {}

function scheduler.share_of(slots)
  if conf.user_share >= 1 then return math.huge end
  return math.max(1, math.ceil(conf.user_share * slots - 1e-9))
end

function scheduler.begin()
  scheduler.sparse_known = false
  -- No tenant holds more than its share of the live slots, but one slot always.
  scheduler.share_cap = scheduler.share_of(clock.slots)
end

local function has_work(t)
  if t.inner then return select(2, levels.front(t.inner)) ~= nil end
  if t.critical + t.normal > 0 then return true end
  for _, name in ipairs(tenants.limiters_of(t)) do
    local limiter = limits.get(name)
    if limits.open(limiter) and (t.ready or limits.is_next(limiter, t.user)) then return true end
  end
  return false
end

-- The task that a claim would take next.
local function head_of(t)
  if t.critical > 0 then
    local id = redis.pcall('LINDEX', keys.critical(t.user), 0)
    if type(id) == 'string' then return id end
  end
  local _, id = tenants.next_queue(t)
  return id
end

-- `head`: its record, if the caller has it.
local function next_charge(t, head)
  while t.inner do t = tenants.get((select(2, levels.front(t.inner)))) end
  local rec = head and head.user == t.user and head
  if not rec then
    local id = head_of(t)
    rec = id and record.load(id)
  end
  if not rec then return conf.by_time and NEVER_SEEN or 1 end
  return costs.charge_of(t, rec.func, rec.cost)
end

-- In and out.

local function put_sparse(t, moved)
  local wanted = t.ready and t.sparse and not t.group
  if wanted then
    if t.in_sparse and not moved then return end
    call('ZADD', keys.ready_sparse, t.tag, t.user)
  elseif t.in_sparse then
    call('ZREM', keys.ready_sparse, t.user)
  else
    return
  end
  t.in_sparse, scheduler.sparse_known = wanted, false
end

-- To another organisation, or out of one; nothing of it runs, so nothing is owed.
local function regroup(t)
  local old, new, queued = t.group, t.wanted, t.critical + t.normal + t.limited
  levels.put_ready(t, false, t.ready)
  levels.put_ahead(t, false, t.ahead)
  levels.contribute(t, 0, 0)
  t.ready, t.ahead, t.sparse, t.late = false, false, false, false
  assigned.place(t)
  put_sparse(t, false)
  if old then
    old.normal, old.delayed = old.normal - queued, old.delayed - t.delayed
    scheduler.place(old)
  end
  if new then
    if new.normal + new.running == 0 then new.sparse = queued > 0 and new.tag <= clock.mark end
    new.normal, new.delayed = new.normal + queued, new.delayed + t.delayed
  end
  t.group, t.level = new, new and new.inner or clock
  t.tag, t.floor, t.placed, t.generation = 0, 0, 0, t.level.generation
end

-- Every change that can open or close a tenant ends here. Opening is the one place that raises a tag: nobody gains by
-- idling, pausing, being capped or coming back, and nobody enters far behind either. `head`: the record of its next task,
-- if the caller has it.
function scheduler.place(t, head)
  if t.wanted ~= t.group and t.running == 0 then regroup(t) end
  local level = t.level
  levels.move(level)
  local work = has_work(t)
  local allowed = work and not t.paused and (t.cap == 0 or t.running < t.cap) and t.running < scheduler.share_cap
  local parked = allowed and t.interval > 0 and limits.earliest(t) > clock.now and limits.earliest(t) or nil
  if parked ~= t.parked then
    if parked then
      call('ZADD', keys.parked, string.format('%.17g', parked), t.user)
    else
      call('ZREM', keys.parked, t.user)
    end
    t.parked = parked
  end
  local claimable = allowed and not parked
  local was_ready, was_ahead = t.ready, t.ahead
  if claimable and not was_ready then
    levels.settle(level)
    local entry = math.min(level.virtual, level.mark + next_charge(t, head) / (t.weight / 1000))
    if entry > t.tag then t.tag = entry end
    t.floor = entry
    if not t.inner then t.since = clock.now end
  end
  t.ready = claimable
  t.late = t.late and claimable
  t.ahead = not claimable and t.running > 0 and t.tag > level.virtual
  local counted = t.ready or t.ahead
  levels.contribute(t, counted and t.weight or 0, counted and t.running or 0)
  local moved = t.tag ~= t.placed
  levels.put_ready(t, t.ready, was_ready, moved)
  levels.put_ahead(t, t.ahead, was_ahead, moved)
  put_sparse(t, moved)
  assigned.place(t)
  t.placed = t.tag
  if not work and t.limited > 0 then
    for _, name in ipairs(tenants.limiters_of(t)) do limits.block(limits.get(name), t.user) end
  end
  if t.group then scheduler.place(t.group, head) end
end

-- Several, whose tags may have moved: the ready sets are told of all before the first one enters.
function scheduler.place_all(list)
  for _, t in ipairs(list) do
    while t do
      if t.ready and t.tag ~= t.placed then
        levels.put_ready(t, true, true, true)
        put_sparse(t, true)
        t.placed = t.tag
      end
      t = t.group
    end
  end
  for _, t in ipairs(list) do scheduler.place(t) end
end

-- The live slots have changed: those who hold more than one of the old share and the new one, but not the other, open or close.
function scheduler.refit()
  local before, after = scheduler.share_cap, scheduler.share_of(clock.slots)
  if before == after then return end
  tenants.tell_holders()
  scheduler.share_cap = after
  for _, user in ipairs(call('ZRANGEBYSCORE', keys.holders, math.min(before, after), '+inf')) do
    scheduler.place(tenants.get(user))
  end
end

local function place_named(user)
  scheduler.place(tenants.get(user))
end

-- Those whose token has come, and those who may try a limiter again.
function scheduler.unpark()
  local due = call('ZRANGEBYSCORE', keys.parked, '-inf', string.format('%.17g', clock.now), 'LIMIT', 0, UNPARK)
  for _, user in ipairs(due) do
    if string.sub(user, 1, 2) == '::' then
      local limiter = limits.get(string.sub(user, 3))
      limiter.parked = limiter.parked or LOST
      limits.unblock(limiter, place_named)
    else
      local t = tenants.get(user)
      t.parked = t.parked or LOST
      scheduler.place(t)
    end
  end
end

-- Other rules or another assignment are in force: the next of all known users are placed anew under them. Returns
-- whether all are.
function scheduler.renew(limit)
  local users = call('ZRANGEBYSCORE', keys.users, string.format('%.17g', clock.renewing), '+inf', 'WITHSCORES', 'LIMIT', 0,
    limit)
  local function renew(user)
    local t = tenants.get(user)
    if t.indexed ~= clock.assigned then
      assigned.place(t)
      if t.group then assigned.place(t.group) end
    end
  end
  for i = 1, #users, 2 do renew(users[i]) end
  if #users == 2 * limit then
    -- And all that came at the same time as the last: with one call, so there are not many.
    local last = users[#users]
    for _, user in ipairs(call('ZRANGEBYSCORE', keys.users, last, last)) do renew(user) end
    clock.renewing = tonumber(last) + 1
    return false
  end
  clock.renewing = 0
  assigned.forget_previous()
  return true
end

-- Its limits are others from now on, also for its backlog. What a tenant owes, or is owed, is service: its distance to
-- the mark scales with the weight. Who is not ready and not beyond the mark owes nothing.
function scheduler.set_limits(t, fields)
  local level = t.level
  levels.move(level)
  local weight = fields.weight or 1000
  levels.settle(level)
  if weight ~= t.weight and (t.ready or t.tag > level.mark) then
    local ratio, zero = t.weight / weight, level.mark
    t.tag = zero + (t.tag - zero) * ratio
    t.floor = zero + (t.floor - zero) * ratio
  end
  t.weight = weight
  tenants.take_limits(t, fields)
  if not t.inner then t.wanted = tenants.group_named(fields.group) end
  scheduler.place(t)
end

-- Whose turn it is.

-- Among some users only: the one with the smallest tags. The lane is for those who serve all.
local function choose_among(users)
  local best, best_root
  for _, user in ipairs(users) do
    local t = tenants.get(user)
    local root = t.group or t
    if t.ready and root.ready then
      local same = best and root == best_root
      if not best or (same and levels.before(t.tag, t.user, best.tag, best.user))
          or (not same and levels.before(root.tag, root.user, best_root.tag, best_root.user)) then
        best, best_root = t, root
      end
    end
  end
  return best
end

local function first_sparse()
  if not scheduler.sparse_known then
    scheduler.sparse_first, scheduler.sparse_known = call('ZRANGE', keys.ready_sparse, 0, 0)[1], true
  end
  return scheduler.sparse_first
end

-- A user stands in the sets of a level that it does not belong to: what was stored is damaged. It leaves them.
function scheduler.cast_out(user, words, level)
  levels.forget_front(level)
  call('ZREM', level.ready, user)
  if level == clock then call('ZREM', keys.ready_sparse, user) end
  scheduler.sparse_known = false
  if words then assigned.strike(user, words, level) end
end

-- The user to serve: a tenant of the root, or the first of its members. With an organisation the caller asks again.
local function down(user, words)
  local t = tenants.get(user)
  if not t.inner then
    if not t.group then return t end
    scheduler.cast_out(user, words, clock)
    return t.group
  end
  local member
  if words then member = assigned.first(t.inner, words) else member = select(2, levels.front(t.inner)) end
  if member then
    local found = tenants.get(member)
    if found.group == t then return found end
    scheduler.cast_out(member, words, t.inner)
  elseif words then
    -- It stands where none of its members does.
    assigned.strike(user, words, clock)
  end
  return t
end

-- The tenant that the next claim serves, and whether through the sparse lane; nil if nobody is ready. `sides`: whom the
-- caller serves (lib/assigned.lua), nil: everybody.
function scheduler.choose(only, sides)
  clock.next_credit = nil
  if only then return choose_among(only), false end
  local user, words, own
  if sides then
    words, own = sides.own, {sides.own[1]}
    user = assigned.first(clock, words)
    if not user and sides.others then
      words = sides.others
      user = assigned.first(clock, words)
    end
  else
    user = select(2, levels.front(clock))
  end
  if not user then return nil end
  local share, slots = conf.sparse_share, math.max(1, clock.slots)
  clock.next_credit = math.min(clock.credit + share, math.max(1, share * slots))
  if clock.next_credit >= 1 and clock.lane < math.max(1, math.floor(share * slots)) then
    local sparse = first_sparse()
    if sparse and (not own or assigned.has(sparse, own[1])) then return down(sparse, own), true end
  end
  return down(user, words), false
end

-- What it gets.

-- Moves tags by an amount of service; a refund stops at the floor.
function scheduler.charge(t, amount)
  levels.move(t.level)
  while t do
    local tag = t.tag + amount / (t.weight / 1000)
    if amount > 0 then t.tag = tag else t.tag = math.min(t.tag, math.max(tag, t.floor)) end
    t = t.group
  end
end

-- After a claim most tenants stay where they are, with another tag: place() for those, in short.
local function stays_ready(t)
  return t.critical + t.normal > 0 and (t.cap == 0 or t.running < t.cap) and t.running < scheduler.share_cap
    and t.interval == 0 and not t.paused and not t.wanted and clock.assigned == 0 and t.indexed == 0
end

local function move_ready(t)
  levels.contribute(t, t.weight, t.running)
  levels.put_ready(t, true, true, true)
  put_sparse(t, true)
  t.placed = t.tag
end

-- A claim of one task: returns what it is charged.
function scheduler.start(t, rec, by_lane, sides)
  clock.credit = clock.next_credit or clock.credit
  if by_lane then
    clock.lane = clock.lane + 1
    clock.credit = clock.credit - 1
  end
  local charge = costs.charge_of(t, rec.func, rec.cost)
  local waited = math.max(0, clock.now - rec.enqueued) / 1000000
  local one = t
  while one do
    local level = one.level
    levels.move(level)
    -- What is served now is the front: nobody may enter behind it, also if it is gone afterwards.
    levels.settle(level)
    one.sparse = false
    levels.charge(level, charge)
    one.tag = one.tag + charge / (one.weight / 1000)
    one.running = one.running + 1
    if one.interval > 0 then limits.take(one, rec.cost) end
    one.waited = one.waited + waited
    window.claimed(one, waited, not conf.by_time and charge or 0)
    one = one.group
  end
  clock.all_running = clock.all_running + 1
  local limiter = record.limiter(rec)
  if limiter then limits.start(limiter, t, rec.cost) end
  if sides and assigned.is_stranger(t, sides) then t.stolen = t.stolen + 1 end
  t.since, t.late = clock.now, false
  if t.group or not stays_ready(t) then scheduler.place(t) else move_ready(t) end
  if t.group then levels.settle(t.level) end
  levels.settle(clock)
  return charge
end

-- It runs no more: its slot, its place in the lane and its permit are free again.
function scheduler.leave(t, by_lane, limiter)
  levels.move(t.level)
  local one = t
  while one do
    one.running = math.max(0, one.running - 1)
    one = one.group
  end
  clock.all_running = math.max(0, clock.all_running - 1)
  if by_lane then clock.lane = math.max(0, clock.lane - 1) end
  if limiter then limits.stop(limiter) end
end

-- A task ended after `seconds` of run time: the charge is corrected to it. `learns` unless it was cut short.
function scheduler.finish(t, rec, seconds, learns)
  if conf.by_time then
    scheduler.charge(t, seconds - rec.charged)
    if learns then costs.learn(t, rec.func, seconds) end
  end
  local one = t
  while one do
    one.served = one.served + seconds
    if conf.by_time then window.served(one, seconds) end
    one = one.group
  end
  scheduler.leave(t, record.has(rec, LANE), record.limiter(rec))
end

-- Given back unstarted: charge and tokens return to the tenant; virtual time stays.
function scheduler.give_back(t, rec)
  scheduler.charge(t, -rec.charged)
  local one = t
  while one do
    limits.give_back(one, rec.cost)
    one = one.group
  end
  local limiter = record.limiter(rec)
  if limiter then limits.give_back(limits.get(limiter), rec.cost) end
  scheduler.leave(t, record.has(rec, LANE), limiter)
end

-- Before a call looks at tenants: time is counted, and the root's virtual time moved.
function scheduler.advance()
  clock.serve()
  levels.roll(clock)
  levels.move(clock)
end

function scheduler.restart_if_idle()
  local restarted = {}
  for _, t in ipairs(tenants.order) do
    local level = t.inner
    if level and t.running == 0 and level.weight == 0 then
      levels.restart(level)
      restarted[level] = true
    end
  end
  if clock.all_running == 0 and clock.weight == 0 then
    levels.restart(clock)
    restarted[clock] = true
  end
  for _, t in ipairs(tenants.order) do
    if restarted[t.level] then t.tag, t.floor, t.generation, t.placed = 0, 0, t.level.generation, 0 end
  end
end

-- A tenant that was read under other rules than are in force now.
tenants.limits_changed = scheduler.set_limits
-- One whose level has begun anew.
tenants.place = scheduler.place
