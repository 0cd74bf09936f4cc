-- INCLUDE prelude keys record clock stats repairs levels limits assigned policies window
-- EXPORTS tenants
-- BEGIN tenants.begin()
-- Tenants, as they are stored. One is a user, or an organisation: then its id begins with a colon, which no encoded user id has, and `inner` is
-- its members' level. Each is read on first use, changed in memory and written once. `counted_weight` and
-- `counted_running` are exactly what it contributes to its level's sums now: place() takes the old contribution out and
-- puts the new one in. Of an organisation, `normal` counts all that its members have queued, and `since` is from when on
-- its record keeps these sums; of a user, since when it waits.
local TENANT = '>BdddI4I4I4I4I4I4I4I4I4I4I4I4I4I4I4dddI4I4I4ffffBBBB'
local TENANT_SIZE = 141
local LIMITS = '>dddI4'
local LIMITS_SIZE = 28
local LEVEL = '>dddddddddddd'
local SPARSE, READY, PAUSED, AHEAD, HAS_LIMITS, PARKED, LATE, MOVING = 1, 2, 4, 8, 16, 32, 64, 128
local COLON = 58
local POOL = 1000
local ADDS = 2000
local LARGE = 4096
local tenants = {loaded = {}, order = {}}

-- Tables are used again from call to call: to make one, with so many fields, takes longer than to fill it.
local pool, used = {}, 0

local function blank(user)
  used = used + 1
  local t = pool[used]
  if not t then
    t = {}
    if used <= POOL then pool[used] = t end
  end
  t.user, t.taken, t.is_new = user, 0, false
  t.inner, t.group, t.wanted, t.heads, t.bodies, t.adds, t.look_ahead, t.limiters, t.in_words, t.words_for, t.base = nil
  t.retry_budget = nil
  return t
end

function tenants.begin()
  if used > 0 then tenants.loaded, tenants.order, used = {}, {}, 0 end
  tenants.changed = false
end

-- How it is stored.

local function parse(t, data)
  local group_size
  t.flags, t.tag, t.floor, t.generation, t.weight, t.cap, t.counted_weight, t.counted_running, t.critical, t.normal,
    t.limited, t.delayed, t.running, t.finished, t.failed, t.canceled, t.stolen, t.indexed, t.rules, t.waited, t.served,
    t.since, t.window, t.claims_now, t.claims_before, t.service_now, t.service_before, t.waits_now, t.waits_before,
    t.rough_backlog, t.rough_service, t.rough_wait, group_size = struct.unpack(TENANT, data)
  local at = TENANT_SIZE + 1
  if bit.band(t.flags, HAS_LIMITS) ~= 0 then
    t.full, t.interval, t.tau, t.max_queued = struct.unpack(LIMITS, data, at)
    at = at + LIMITS_SIZE
  else
    t.full, t.interval, t.tau, t.max_queued = 0, 0, 0, 0
  end
  t.in_group = string.sub(data, at, at + group_size - 1)
  if t.inner then
    local level = t.inner
    level.virtual, level.mark, level.weight, level.running, level.generation, level.at, level.past, level.window,
      level.virtual_now, level.virtual_before, level.served_now, level.served_before =
      struct.unpack(LEVEL, data, at + group_size)
  end
  t.sparse = bit.band(t.flags, SPARSE) ~= 0
  t.ready = bit.band(t.flags, READY) ~= 0
  t.paused = bit.band(t.flags, PAUSED) ~= 0
  t.ahead = bit.band(t.flags, AHEAD) ~= 0
  t.late = bit.band(t.flags, LATE) ~= 0
  t.moving = bit.band(t.flags, MOVING) ~= 0
  t.parked = bit.band(t.flags, PARKED) ~= 0 and t.full - t.tau or nil
end

local function fresh(t)
  t.flags, t.tag, t.floor, t.generation, t.weight, t.cap, t.counted_weight, t.counted_running = 0, 0, 0, 0, 1000, 0, 0, 0
  t.critical, t.normal, t.limited, t.delayed, t.running, t.finished, t.failed, t.canceled = 0, 0, 0, 0, 0, 0, 0, 0
  t.stolen, t.indexed, t.rules, t.waited, t.served, t.since, t.window = 0, 0, clock.rules, 0, 0, 0, 0
  t.claims_now, t.claims_before, t.service_now, t.service_before, t.waits_now, t.waits_before = 0, 0, 0, 0, 0, 0
  t.rough_backlog, t.rough_service, t.rough_wait = 0, 0, 0
  t.full, t.interval, t.tau, t.max_queued, t.in_group = 0, 0, 0, 0, ''
  t.sparse, t.ready, t.paused, t.ahead, t.late, t.moving, t.is_new = false, false, false, false, false, false, true
  local level = t.inner
  if level then
    level.virtual, level.mark, level.weight, level.running, level.at = 0, 0, 0, 0, clock.served_to
    -- Members that outlived it must not find their old tags valid.
    level.generation, level.past, level.window = clock.now, 0, 0
    t.since = clock.now
    level.virtual_now, level.virtual_before, level.served_now, level.served_before = 0, 0, 0, 0
  end
end

local function packed(t)
  local limited = t.interval > 0 or t.max_queued > 0
  local flags = (t.sparse and SPARSE or 0) + (t.ready and READY or 0) + (t.paused and PAUSED or 0)
    + (t.ahead and AHEAD or 0) + (limited and HAS_LIMITS or 0) + (t.parked and PARKED or 0) + (t.late and LATE or 0)
    + (t.wanted ~= t.group and MOVING or 0)
  local group = t.group and t.group.user or ''
  local data = struct.pack(TENANT, flags, t.tag, t.floor, t.generation, t.weight, t.cap, t.counted_weight,
    t.counted_running, t.critical, t.normal, t.limited, t.delayed, t.running, t.finished, t.failed, t.canceled, t.stolen,
    t.indexed, t.rules, t.waited, t.served, t.since, t.window, t.claims_now, t.claims_before, t.service_now,
    t.service_before, t.waits_now, t.waits_before, t.rough_backlog, t.rough_service, t.rough_wait, #group)
  if limited then data = data .. struct.pack(LIMITS, t.full, t.interval, t.tau, t.max_queued) end
  data = data .. group
  local level = t.inner
  if level then
    data = data .. struct.pack(LEVEL, level.virtual, level.mark, level.weight, level.running, level.generation, level.at,
      level.past, level.window, level.virtual_now, level.virtual_before, level.served_now, level.served_before)
  end
  return data
end

-- While a tenant may hold only a share of the slots, `holders` tells who runs how many.
function tenants.tell_holders()
  if conf.user_share >= 1 then return end
  for _, t in ipairs(tenants.order) do
    if t.running ~= t.told_running then
      if t.running > 0 then call('ZADD', keys.holders, t.running, t.user) else call('ZREM', keys.holders, t.user) end
      t.told_running = t.running
    end
  end
end

function tenants.save()
  tenants.tell_holders()
  for _, t in ipairs(tenants.order) do
    tenants.sync(t)
    if t.inner then levels.forget_front(t.inner) end
    if not t.inner then
      window.list(t)
      if t.is_new then call('ZADD', keys.users, clock.now, t.user) end
    end
    if t.critical + t.normal + t.limited + t.delayed + t.running == 0 then
      -- Idle: its counters and its tag go together. A tag at or below the mark changes no decision, and one beyond
      -- it is a debt that a fresh name would not have either. An organisation outlives its members.
      call('SET', keys.user(t.user), packed(t), 'PX', t.inner and conf.user_ttl * 2 or conf.user_ttl)
    else
      call('SET', keys.user(t.user), packed(t))
    end
  end
end

-- What it may use.

function tenants.group_named(name)
  if not name or call('HEXISTS', keys.groups, name) == 0 then return nil end
  return tenants.get(':' .. name)
end

function tenants.take_limits(t, fields)
  t.cap, t.paused, t.max_queued = fields.max_concurrency or 0, fields.paused == true, fields.max_queued or 0
  limits.pace(t, fields)
end

-- Should what is stored be damaged.

-- Its level has begun anew without it, so it has no place there: while a level begins anew by itself, nobody has.
local function enter_level(t)
  t.generation, t.tag, t.floor = t.level.generation, 0, 0
  t.counted_weight, t.counted_running, t.ready, t.ahead = 0, 0, false, false
end

-- An organisation whose sums are being counted again counts each member when that is first read.
local function enter_sums(t)
  local group = t.group
  group.normal, group.delayed = group.normal + t.critical + t.normal + t.limited, group.delayed + t.delayed
  group.running = group.running + t.running
end

-- All users are to be read, and placed, once more; those that this call has read are so already.
local function read_all()
  clock.rules, clock.renewing = clock.rules + 1, 1
  for _, t in ipairs(tenants.order) do
    if not t.inner then t.rules = clock.rules end
  end
  tenants.changed = true
end

-- The sums of a level are not to be believed: it begins anew, and its tenants enter as they are read.
function tenants.begin_level(level)
  levels.forget_front(level)
  levels.restart(level)
  level.weight, level.running, level.ahead_known = 0, 0, false
  call('UNLINK', level.ahead)
  read_all()
  for _, t in ipairs(tenants.order) do
    if t.level == level then enter_level(t) end
  end
  for _, t in ipairs(tenants.order) do
    if t.level == level then tenants.place(t) end
  end
end

-- The sums of an organisation are not to be believed.
function tenants.begin_sums(group)
  group.normal, group.delayed, group.running = 0, 0, 0
  read_all()
  group.rules = clock.rules
  for _, t in ipairs(tenants.order) do
    if t.group == group then enter_sums(t) end
  end
end

-- The record of a member's organisation was lost, and one made that knows nothing of the member. What the lost one
-- contributed to the root level is not known.
local function has_lost_group(t)
  local group = t.group
  return group and t.generation < group.since and t.critical + t.normal + t.limited + t.delayed + t.running > 0 and group
end

local function begin_group(group)
  group.since = 0
  tenants.begin_level(clock)
  tenants.begin_sums(group)
  repairs.mended('group ' .. string.sub(group.user, 2), 'record', 'none', 'made anew')
end

-- As it is stored, for those who only look; nil if it is not. What they change of it is not written.
function tenants.peek(user)
  local t = tenants.loaded[user]
  if t then return t end
  local data = redis.pcall('GET', keys.user(user))
  if type(data) ~= 'string' or #data < TENANT_SIZE then return nil end
  t = {user = user}
  if string.byte(user) == COLON then t.inner = {user = user, ready = keys.ready_in(user), ahead = keys.ahead_in(user)} end
  parse(t, data)
  return t
end

-- The organisation of one that was looked at, or read; '' if it has none.
function tenants.group_of(t)
  if t.level then return t.group and t.group.user or '' end
  return t.in_group
end

function tenants.get(user)
  local t = tenants.loaded[user]
  if t then return t end
  t = blank(user)
  if string.byte(user) == COLON then
    t.inner = {user = user, ready = keys.ready_in(user), ahead = keys.ahead_in(user)}
  end
  local data = redis.pcall('GET', keys.user(user))
  local fields
  if type(data) == 'string' and #data >= TENANT_SIZE then
    parse(t, data)
    -- The clock was lost, and could not know how far it had been.
    if t.inner and t.rules > clock.rules then clock.rules, clock.renewing = t.rules + 1, 1 end
    if t.in_group ~= '' then
      t.group = tenants.get(t.in_group)
      -- `rules` of an organisation: since which of them it counts its members.
      if t.rules < t.group.rules then enter_sums(t) end
    end
    t.wanted = t.group
    if t.moving then t.wanted = tenants.group_named(policies.of(user).group) end
  else
    fresh(t)
    fields = t.inner and policies.of_group(string.sub(user, 2)) or policies.of(user)
    t.weight = fields.weight or 1000
    tenants.take_limits(t, fields)
    if not t.inner then t.group = tenants.group_named(fields.group) end
    t.wanted = t.group
  end
  t.level = t.group and t.group.inner or clock
  local lost = has_lost_group(t)
  if t.generation ~= t.level.generation then enter_level(t) end
  -- What the sorted sets hold of it now.
  t.placed, t.in_sparse = t.tag, t.ready and t.sparse and not t.group
  t.was_ready, t.was_late, t.told_running = t.ready, t.late, t.running
  tenants.loaded[user] = t
  tenants.order[#tenants.order + 1] = t
  if t.rules ~= clock.rules and not t.inner then
    t.rules = clock.rules
    tenants.limits_changed(t, policies.of(user))
    tenants.changed = true
  end
  if lost and lost.since > 0 then begin_group(lost) end
  return t
end
levels.tenant = tenants.get

-- Its queues.

-- Whether a command on a key of a tenant's own (redis.pcall) found that somebody has put something else there. Then
-- nothing of the tenant starts that stands in that key, until it is mended by hand or by `queue.reconcile()`; all others go on.
function tenants.is_broken(reply)
  if type(reply) ~= 'table' or not reply.err then return false end
  if string.find(reply.err, 'read-only script', 1, true) then return true end -- it only looks (lib/pretend.lua)
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply) end
  stats.add('broken')
  return true
end

local function length_of(command, key)
  local length = redis.pcall(command, key)
  return tenants.is_broken(length) and 0 or length
end

local function names_of_limiters(t)
  local names = redis.pcall('SMEMBERS', keys.limiters_of(t.user))
  return tenants.is_broken(names) and {} or names
end

-- Its limiters that have tasks of it, in the order of their bytes.
function tenants.limiters_of(t)
  if t.limited == 0 then return {} end
  if not t.limiters then
    t.limiters = names_of_limiters(t)
    table.sort(t.limiters, function(one, two) return levels.before(0, one, 0, two) end)
  end
  return t.limiters
end

function tenants.queued_under(t, name)
  t.limiters = nil
  tenants.is_broken(redis.pcall('SADD', keys.limiters_of(t.user), name))
end

function tenants.emptied_under(t, name)
  t.limiters = nil
  tenants.is_broken(redis.pcall('SREM', keys.limiters_of(t.user), name))
end

-- The head of the normal queue, and its record as it is stored. Both are read ahead, more each time unless the records are
-- large, and taken out together.
function tenants.take_head(t)
  local heads = t.heads
  if not heads or t.taken == #heads then
    local ahead = t.look_ahead or 1
    if t.bodies and #(t.bodies[1] or '') > LARGE then ahead = 1 end
    tenants.sync(t)
    heads = redis.pcall('ZRANGE', keys.normal(t.user), 0, ahead - 1)
    if not heads[1] then return nil end
    local names = {}
    for i, id in ipairs(heads) do names[i] = keys.task(id) end
    t.heads, t.bodies, t.look_ahead = heads, call('MGET', unpack(names)), math.min(32, ahead * 4)
  end
  t.taken = t.taken + 1
  return heads[t.taken], t.bodies[t.taken]
end

-- Into the normal queue, with others that come in this call.
function tenants.add(t, score, id)
  if t.taken > 0 then tenants.sync(t) end
  local adds = t.adds
  if not adds then
    adds = {}
    t.adds = adds
  end
  adds[#adds + 1] = score
  adds[#adds + 1] = id
  if #adds >= ADDS then tenants.sync(t) end
end

-- The normal queue as it is in memory. Should it be broken, what came waits in the registry alone, until it is mended.
function tenants.sync(t)
  if t.taken > 0 then tenants.is_broken(redis.pcall('ZREMRANGEBYRANK', keys.normal(t.user), 0, t.taken - 1)) end
  if t.adds and tenants.is_broken(redis.pcall('ZADD', keys.normal(t.user), unpack(t.adds))) then
    tenants.count(t, 'normal', -#t.adds / 2)
  end
  t.heads, t.taken, t.adds = nil, 0, nil
end

-- The queue by score that a claim would take from and its head; nil if nothing there can start. The normal queue comes
-- first among equals, then limiters by name.
function tenants.next_queue(t)
  local best, best_score, id, limiter
  tenants.sync(t)
  if t.normal > 0 then
    -- What is broken has no first one; whoever wants it counts again.
    local first = redis.pcall('ZRANGE', keys.normal(t.user), 0, 0, 'WITHSCORES')
    best, best_score, id = first[1] and keys.normal(t.user), tonumber(first[2]), first[1]
  end
  for _, name in ipairs(tenants.limiters_of(t)) do
    if limits.open(limits.get(name)) then
      local key = keys.limited(t.user, name)
      local first = redis.pcall('ZRANGE', key, 0, 0, 'WITHSCORES')
      local score = tonumber(first[2])
      if first[1] and (not best or score < best_score) then best, best_score, id, limiter = key, score, first[1], name end
    end
  end
  return best, id, limiter
end

-- A task enters the tenant's queue as by a push (call before counting it). It may use the lane if it owes nothing.
function tenants.arrive(t)
  local one = t.group or t
  if one.critical + one.normal + one.limited + one.running == 0 then one.sparse = one.tag <= clock.mark end
end

-- How much its queues hold: CRITICAL, normal, under limiters.
function tenants.lengths(user)
  local limited = 0
  for _, name in ipairs(names_of_limiters({user = user})) do
    limited = limited + length_of('ZCARD', keys.limited(user, name))
  end
  return length_of('LLEN', keys.critical(user)), length_of('ZCARD', keys.normal(user)), limited
end

-- Its counts become what its queues hold, should keys have been lost.
function tenants.recount(t)
  if t.inner then return end
  tenants.sync(t)
  local function differ(field, length)
    if length ~= t[field] then
      tenants.count(t, field, length - t[field])
      stats.add('healed')
    end
  end
  for _, name in ipairs(names_of_limiters(t)) do
    if length_of('EXISTS', keys.limited(t.user, name)) == 0 then tenants.emptied_under(t, name) end
  end
  local critical, normal, limited = tenants.lengths(t.user)
  differ('critical', critical)
  differ('normal', normal)
  differ('limited', limited)
end

-- `field`: critical, normal, limited or delayed.
function tenants.count(t, field, by)
  t[field] = math.max(0, t[field] + by)
  if t.group then
    field = field == 'delayed' and field or 'normal'
    t.group[field] = math.max(0, t.group[field] + by)
  end
end

-- Whether it, or its organisation, has as much waiting as it may: who, how much, the limit, and after how many seconds
-- there is likely to be room ('-' if nobody knows).
function tenants.over_quota(t, more)
  while t do
    local waiting = t.critical + t.normal + t.limited + t.delayed + (more and more[t] or 0)
    if t.max_queued > 0 and waiting >= t.max_queued then
      window.roll(t)
      local claims, seconds = t.claims_now + t.claims_before, window.seconds()
      local room = claims > 0 and string.format('%.3f', (waiting - t.max_queued + 1) * seconds / claims) or '-'
      return t.user .. ' ' .. waiting .. ' ' .. t.max_queued .. ' ' .. room
    end
    t = t.group
  end
end

