-- INCLUDE prelude keys states record clock repairs tenants scheduler leases writes
-- EXPORTS holdings
-- BEGIN holdings.begin()
-- What runs is what workers hold: all other counts of it follow (lib/reconcile.lua).
local LANE_MARK = 49
local MANY = 1000
local holdings = {}
local found, by_group, spared

function holdings.begin()
  found, by_group, spared = nil, nil, false
end

local function each(visit)
  for _, incarnation in ipairs(call('ZRANGE', keys.workers, 0, -1)) do visit(incarnation, true) end
  for _, incarnation in ipairs(call('ZRANGE', keys.dead, 0, -1)) do visit(incarnation, false) end
end

-- By what the entries say, those of the dead included: how much is held in all, by the lane, of each user, under each
-- limiter; and the slots of live workers.
function holdings.all()
  if found then return found end
  local all = {count = 0, lane = 0, slots = 0, users = {}, limiters = {}}
  each(function(incarnation, alive)
    if alive then all.slots = all.slots + tonumber(call('HGET', keys.worker(incarnation), 'slots') or 0) end
    for _, entry in ipairs(call('HVALS', keys.held(incarnation))) do
      local user, line_break = string.sub(entry, 19), string.find(entry, '\n', 19, true)
      if line_break then
        local limiter = string.sub(entry, line_break + 1)
        user = string.sub(entry, 19, line_break - 1)
        all.limiters[limiter] = (all.limiters[limiter] or 0) + 1
      end
      all.count = all.count + 1
      if string.byte(entry, 18) == LANE_MARK then all.lane = all.lane + 1 end
      all.users[user] = (all.users[user] or 0) + 1
    end
  end)
  found = all
  return all
end

-- How many tasks of a user are held, or if they are too many to be read now, what is `believed`.
function holdings.of_user(user, believed)
  if spared and not found then return believed end
  return holdings.all().users[user] or 0
end

-- The same under a limiter.
function holdings.of_limiter(name, believed)
  if spared and not found then return believed end
  return holdings.all().limiters[name] or 0
end

-- The same of an organisation's members.
function holdings.of_group(group, believed)
  if spared and not found then return believed end
  if not by_group then
    by_group = {}
    for user, count in pairs(holdings.all().users) do
      local t = tenants.peek(user)
      local name = t and tenants.group_of(t) or ''
      by_group[name] = (by_group[name] or 0) + count
    end
  end
  return by_group[group] or 0
end

-- A member has been moved, or found.
function holdings.regroup()
  by_group = nil
end

local function hold_again(id, rec)
  leases.hold(rec.holder, id, rec)
  writes.flush()
  if record.has(rec, CANCEL) then leases.mark_cancel(rec.holder, id) end
  repairs.mended('task ' .. id, 'holder', 'nobody', rec.holder)
end

-- Every claim against its record and the registry. What a live worker does not hold any more is held again: it may well
-- run, and if not it is delivered again. A holder that nobody knows goes the way of the dead. Returns ids that were
-- registered as started and are something else.
function holdings.check()
  local known, kept, others, started = {}, {}, {}, keys.state('started')
  each(function(incarnation)
    known[incarnation] = true
    local entries = call('HGETALL', keys.held(incarnation))
    for i = 1, #entries, 2 do
      local id = entries[i]
      local rec = record.load(id)
      repairs.look()
      if rec and rec.state == STARTED and rec.token == string.sub(entries[i + 1], 1, 16) and rec.holder == incarnation then
        kept[id] = true
        if not call('ZSCORE', started, id) then
          call('ZADD', started, rec.entered, id)
          repairs.mended('task ' .. id, 'registry', 'none', 'started')
        end
      else
        call('HDEL', keys.held(incarnation), id)
        repairs.mended('task ' .. id, 'holder', incarnation, 'nobody')
      end
    end
  end)
  for _, id in ipairs(call('ZRANGE', started, 0, -1)) do
    local rec = not kept[id] and record.load(id)
    if rec and rec.state == STARTED then
      if not known[rec.holder] then
        known[rec.holder] = true
        call('ZADD', keys.dead, clock.now, rec.holder)
      end
      hold_again(id, rec)
    elseif not kept[id] then
      call('ZREM', started, id)
      repairs.mended('task ' .. id, 'registry', 'started', rec and STATE_NAMES[rec.state] or 'gone')
      if rec then others[#others + 1] = id end
    end
  end
  holdings.begin()
  local all = holdings.all()
  for name, value in pairs({all_running = all.count, lane = all.lane, slots = all.slots}) do
    if clock[name] ~= value then
      repairs.mended('queue', name, clock[name], value)
      clock[name] = value
    end
  end
  scheduler.refit()
  return others
end

-- Whether the few numbers that are at hand agree. While very much is held, all of it is read once a lease only.
function holdings.agree()
  local count, slots = 0, 0
  each(function(incarnation, alive)
    count = count + call('HLEN', keys.held(incarnation))
    if alive then slots = slots + tonumber(call('HGET', keys.worker(incarnation), 'slots') or 0) end
  end)
  spared = count > MANY and math.floor(clock.now / conf.lease) == math.floor(clock.swept / conf.lease)
  if count ~= clock.all_running or slots ~= clock.slots or count ~= call('ZCARD', keys.state('started'))
      or not spared and holdings.all().lane ~= clock.lane then
    return false
  end
  -- And so do some records.
  for _, id in ipairs(call('ZRANDMEMBER', keys.state('started'), 10)) do
    if call('EXISTS', keys.task(id)) == 0 then return false end
  end
  return true
end
