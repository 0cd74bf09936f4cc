-- INCLUDE prelude keys record clock stats repairs levels limits assigned tenants scheduler holdings writes
-- EXPORTS mend
-- BEGIN mend.begin()
-- Tenants and limiters, compared with what else is stored of them: queues say what waits, what workers hold says what
-- runs, and their records say in which sets they stand (lib/reconcile.lua).
local DELAYED, GROUPS, COUNTED = 1000, 500, 200
local UNKNOWN_NUMBER = -1
local mend = {}
local delayed_by_user
local score = repairs.score

function mend.begin()
  delayed_by_user = nil
end

-- What this call has changed in memory only is written first, so that what is stored can be compared.
function mend.write_all()
  writes.flush()
  for _, t in ipairs(tenants.order) do
    tenants.sync(t)
    if t.inner then levels.forget_front(t.inner) end
  end
  levels.forget_front(clock)
end

-- All records of tasks shall be gone through, since some are nowhere else (lib/reconcile.lua). `user`: whose count says so.
local function ask_for_scan(user)
  if call('HSETNX', keys.meta, 'scan', '0') == 1 and user then call('HSET', keys.meta, 'suspect', user) end
end

-- How many of a user's tasks are delayed; nil if all together are too many to be counted.
local function delayed_of(user)
  if delayed_by_user == nil then
    local registries = {keys.state('scheduled'), keys.state('deferred')}
    delayed_by_user = call('ZCARD', registries[1]) + call('ZCARD', registries[2]) <= DELAYED and {}
    for _, registry in ipairs(delayed_by_user and registries or {}) do
      for _, id in ipairs(call('ZRANGE', registry, 0, -1)) do
        local rec = record.load(id)
        if rec then delayed_by_user[rec.user] = (delayed_by_user[rec.user] or 0) + 1 end
      end
    end
  end
  return delayed_by_user and (delayed_by_user[user] or 0)
end

-- The level of a tenant that was only looked at; nil if the record of its organisation is gone.
local function level_of(t)
  if t.level then return t.level end
  if t.in_group == '' then return clock end
  local group = tenants.peek(t.in_group)
  return group and group.inner
end

-- Whether the sets hold of it what its record says.
local function agrees(t, level)
  if level.unwritten then levels.forget_front(level) end
  local current = t.generation == level.generation
  local ready, ahead = current and t.ready, current and t.ahead
  local counts = ready or ahead
  return score(level.ready, t.user) == (ready and t.tag or nil)
    and score(level.ahead, t.user) == (ahead and t.tag or nil)
    and score(keys.parked, t.user) == t.parked
    and score(keys.ready_sparse, t.user) == (ready and t.sparse and level == clock and t.tag or nil)
    and (not current or t.counted_weight == (counts and t.weight or 0))
    and (not current or t.counted_running == (counts and t.running or 0))
    and assigned.agrees(t, level, ready)
end

-- Whether there is a reason that it is not ready though it has work.
local function may_wait(t)
  if t.paused or t.parked or (t.cap > 0 and t.running >= t.cap) or t.running >= scheduler.share_cap then return true end
  if t.inner or t.critical + t.normal > 0 then return false end
  for _, name in ipairs(tenants.limiters_of(t)) do
    if not call('ZSCORE', keys.blocked(name), t.user) then return false end
  end
  return true
end

local function is_placed(t, level)
  local work
  if t.inner then work = call('EXISTS', t.inner.ready) == 1 else work = t.critical + t.normal + t.limited > 0 end
  local ready = t.ready and t.generation == level.generation
  return agrees(t, level) and (not ready or work) and (ready or not work or may_wait(t))
end

-- Whether the lists by which users are shown have it where its record says.
local function is_listed(t)
  local function at(key, value) return score(key, t.user) == (value > 0 and value or nil) end
  return at(keys.by_backlog, t.rough_backlog) and at(keys.by_service, t.rough_service) and at(keys.by_wait, t.rough_wait)
    and (conf.user_share >= 1 or at(keys.holders, t.told_running or t.running))
end

-- Into the sets in which it belongs by its record, and out of all others.
local function place_anew(t)
  local level = t.level
  levels.forget_front(level)
  if not t.ready then call('ZREM', level.ready, t.user) end
  if not t.ahead then call('ZREM', level.ahead, t.user) end
  call('ZREM', keys.ready_sparse, t.user)
  level.ahead_known, scheduler.sparse_known, t.in_sparse = false, false, false
  t.placed, t.parked = nil, UNKNOWN_NUMBER
  assigned.doubt(t)
  scheduler.place(t)
  assigned.recount(t)
end

-- Who is ready or ahead counts, and nobody else; of more than `most` this is not added up.
local function sums_agree(level, most)
  if call('ZCARD', level.ready) + call('ZCARD', level.ahead) > most then return true end
  local weight, running, seen = 0, 0, {}
  for _, key in ipairs({level.ready, level.ahead}) do
    for _, user in ipairs(call('ZRANGE', key, 0, -1)) do
      local t = not seen[user] and tenants.peek(user)
      seen[user] = true
      if t and tenants.group_of(t) ~= (level.user or '') then
        scheduler.cast_out(user, nil, level)
        call('ZREM', level.ahead, user)
        repairs.mended('user ' .. user, 'place', 'elsewhere', 'where its record says')
      elseif t and t.generation == level.generation then
        weight, running = weight + t.counted_weight, running + t.counted_running
      end
    end
  end
  return weight == level.weight and running == level.running
end

-- A level's sums. `begin`: gives the level as it is changed and written back.
local function check_level(level, name, begin, most)
  if level.unwritten then levels.forget_front(level) end
  if sums_agree(level, most or COUNTED) then return end
  repairs.mended(name, 'weight of those who compete', level.weight, 'added up again')
  tenants.begin_level(begin())
end

function mend.root(most)
  check_level(clock, 'queue', function() return clock end, most)
end

-- Appends a member: its organisation, itself, what it has queued and delayed as its record says.
function mend.list_member(user, list)
  local t = tenants.peek(user)
  local group = t and tenants.group_of(t) or ''
  if group == '' then return end
  for _, value in ipairs({group, user, t.critical + t.normal + t.limited, t.delayed}) do list[#list + 1] = value end
end

-- What an organisation counts of its members, who are all given.
function mend.sums(group, members)
  local t, queued, delayed = tenants.peek(group), 0, 0
  for _, user in ipairs(members) do
    local member = tenants.peek(user)
    if member and tenants.group_of(member) == group then
      queued, delayed = queued + member.critical + member.normal + member.limited, delayed + member.delayed
    end
  end
  if not t or (t.normal == queued and t.delayed == delayed) then return end
  repairs.mended('group ' .. string.sub(group, 2), 'waiting tasks', t.normal + t.delayed, queued + delayed)
  tenants.begin_sums(tenants.get(group))
end

function mend.group(user)
  repairs.look()
  local t, name = tenants.peek(user), 'group ' .. string.sub(user, 2)
  if not t then return end
  local running = holdings.of_group(user, t.running)
  -- (While all users are read once more, it may be counting its members.)
  if t.running ~= running and clock.renewing == 0 then
    t = tenants.get(user)
    repairs.mended(name, 'running', t.running, running)
    t.running = running
    scheduler.place(t)
  end
  check_level(t.inner, name, function() return tenants.get(user).inner end)
  if not is_placed(t, clock) then
    repairs.mended(name, 'place', 'wrong', 'as its record says')
    place_anew(tenants.get(user))
  end
end

-- Nobody knows any more which organisation a user belonged to that is in another one now, or in none.
local function begin_all_sums(but)
  for _, name in ipairs(call('HRANDFIELD', keys.groups, GROUPS)) do
    local group = tenants.peek(':' .. name)
    if group and group.user ~= (but and but.user) and group.normal + group.delayed + group.running > 0 then
      tenants.begin_sums(tenants.get(group.user))
    end
  end
end

-- Something of a user is not as it must be. `lost`: its record was.
local function mend_user(t, running, lost)
  local name = 'user ' .. t.user
  local critical, normal, limited = tenants.lengths(t.user)
  if lost or critical > t.critical or normal > t.normal or limited > t.limited or running > t.running then
    -- Also when it has been made anew since. What the lost one contributed to sums is not known.
    lost = true
    tenants.begin_level(t.level)
    if t.group then tenants.begin_sums(t.group) end
    begin_all_sums(t.group)
  end
  for field, length in pairs({critical = critical, normal = normal, limited = limited}) do
    if t[field] ~= length then repairs.tell(name, field, t[field], length) end
  end
  tenants.recount(t)
  if t.running ~= running then
    repairs.mended(name, 'running', t.running, running)
    levels.move(t.level)
    t.running = running
  end
  -- Registries can be lost too: less is believed only when all tasks have been gone through.
  if lost and (delayed_of(t.user) or 0) > t.delayed then mend.delayed(t.user) end
  t.rough_backlog, t.rough_service, t.rough_wait = UNKNOWN_NUMBER, UNKNOWN_NUMBER, UNKNOWN_NUMBER
  t.told_running = UNKNOWN_NUMBER
  place_anew(t)
  if t.group then
    holdings.regroup()
    mend.group(t.group.user)
  end
end

-- A user's count of delayed tasks becomes what the registries say.
function mend.delayed(user)
  local t, delayed = tenants.peek(user), delayed_of(user)
  if not t or not delayed or delayed == t.delayed then return end
  repairs.mended('user ' .. user, 'delayed', t.delayed, delayed)
  tenants.count(tenants.get(user), 'delayed', delayed - t.delayed)
end

-- What is left of a user whose record has expired.
local function forget(user)
  for _, list in ipairs({keys.users, keys.by_backlog, keys.by_service, keys.by_wait}) do call('ZREM', list, user) end
end

local function stands_somewhere(user)
  return call('ZSCORE', keys.ready_all, user) or call('ZSCORE', keys.ahead, user) or call('ZSCORE', keys.parked, user)
end

-- The first of its queues, and one that stands anywhere.
local function some_tasks(t)
  local found = {}
  local function take(id)
    if type(id) == 'string' then found[#found + 1] = id end
  end
  if t.critical > 0 then take(redis.pcall('LINDEX', keys.critical(t.user), 0)) end
  if t.normal > 0 then
    take(redis.pcall('ZRANGE', keys.normal(t.user), 0, 0)[1])
    take(redis.pcall('ZRANDMEMBER', keys.normal(t.user), 1)[1])
  end
  for _, name in ipairs(tenants.limiters_of(t)) do take(redis.pcall('ZRANGE', keys.limited(t.user, name), 0, 0)[1]) end
  return found
end

-- Whether the registries know of its tasks: of some, and of as many delayed ones as it has.
local function knows_tasks(t)
  for _, id in ipairs(some_tasks(t)) do
    if not call('ZSCORE', keys.state('queued'), id) and call('EXISTS', keys.task(id)) == 1 then return false end
  end
  local delayed = t.delayed > 0 and delayed_of(t.user)
  return not delayed or delayed == t.delayed
end

function mend.user(user)
  repairs.look()
  if tenants.loaded[user] then tenants.sync(tenants.loaded[user]) end
  local t = tenants.peek(user)
  local running = t and holdings.of_user(user, t.running) or holdings.all().users[user] or 0
  local critical, normal, limited = tenants.lengths(user)
  if not t then
    if critical + normal + limited + running == 0 and not stands_somewhere(user) then return forget(user) end
    repairs.mended('user ' .. user, 'record', 'none', 'made anew')
    return mend_user(tenants.get(user), running, true)
  end
  local level = level_of(t)
  if level and t.rules == clock.rules and t.critical == critical and t.normal == normal and t.limited == limited
      and t.running == running then
    if is_placed(t, level) and is_listed(t) then
      if not knows_tasks(t) then ask_for_scan(user) end
      return
    end
    repairs.mended('user ' .. user, 'place', 'wrong', 'as its record says')
  elseif level and t.rules ~= clock.rules and clock.renewing > 0 then
    return -- it will be read, and placed, under the rules in force
  end
  mend_user(tenants.get(user), running, false)
end

-- A limiter's count, and that it lets those in who wait for it.
function mend.limiter(name)
  repairs.look()
  local limiter = limits.peek(name)
  local running = holdings.of_limiter(name, limiter.running)
  local waits = call('EXISTS', keys.blocked(name)) == 1
  if limiter.running == running and score(keys.parked, '::' .. name) == limiter.parked
      and (limiter.parked or not waits or (limiter.cap > 0 and running >= limiter.cap)) then
    return
  end
  limiter = limits.get(name)
  repairs.mended('limiter ' .. name, 'running', limiter.running, running)
  limiter.running, limiter.parked = running, UNKNOWN_NUMBER
  limits.park(limiter, waits and clock.now or nil)
end

-- A tenant that was chosen though it is not ready by its own record: one of the two is damaged. `sides` as of the choice.
function mend.misplaced(t, sides)
  mend.write_all()
  if t.is_new then
    repairs.mended('user ' .. t.user, 'record', 'none', 'made anew')
    mend_user(t, holdings.all().users[t.user] or 0, true)
  else
    stats.add('healed')
    tenants.recount(t)
    place_anew(t)
    if t.group then place_anew(t.group) end
  end
  local one = t
  while one do
    if sides and not one.ready then
      assigned.strike(one.user, sides.own, one.level)
      assigned.strike(one.user, sides.others or {}, one.level)
    end
    one = one.group
  end
end
