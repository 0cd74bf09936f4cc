-- INCLUDE prelude keys clock
-- EXPORTS levels
-- A level is a set of tenants that compete directly, with a virtual time of its own: the root (the clock itself), and
-- within each organisation its members.
--
-- virtual, mark: virtual time and the furthest front ever; neither goes back. weight, running: what the counted tenants
-- (ready, or running with a tag beyond virtual time) contribute. at: how far service had gone when virtual time was last
-- moved. ready, ahead: the keys of its two sorted sets, whose first entries are remembered until they change.
--
-- The window is two buckets of half a minute: what was served, and how far virtual time had come at the beginning of
-- each (`past`: what earlier generations had added). What a tenant may have of it is that way times its weight.
local WINDOW = 30000000
local levels = {}

-- Bytes decide ties: `<` would ask the server's locale.
function levels.before(tag, name, other_tag, other)
  if tag ~= other_tag then return tag < other_tag end
  for i = 1, math.min(#name, #other) do
    local one, two = string.byte(name, i), string.byte(other, i)
    if one ~= two then return one < two end
  end
  return #name < #other
end

-- The first two of the ready are remembered. While who is first stays so, its tag moves in memory only (`unwritten`).
function levels.forget_front(level)
  local t = level.unwritten
  if t then
    call('ZADD', level.ready, t.tag, t.user)
    level.unwritten = nil
  end
  level.ready_known = false
end

-- The smallest ready tag and whose it is; with nobody ready, virtual time.
function levels.front(level)
  if not level.ready_known then
    local found = call('ZRANGE', level.ready, 0, 1, 'WITHSCORES')
    level.ready_first, level.ready_tag = found[1], tonumber(found[2])
    level.second, level.second_tag, level.ready_known = found[3], tonumber(found[4]), true
  end
  if level.ready_first then return level.ready_tag, level.ready_first end
  return level.virtual, nil
end

-- After each move of virtual time: those whom it passed no longer count.
local function drop_passed(level)
  while true do
    if not level.ahead_known then
      local first = call('ZRANGE', level.ahead, 0, 0, 'WITHSCORES')
      level.ahead_first, level.ahead_tag, level.ahead_known = first[1], tonumber(first[2]), true
    end
    local first = level.ahead_first
    if not first or level.ahead_tag > level.virtual then return end
    local t = levels.tenant(first)
    call('ZREM', level.ahead, first)
    level.ahead_known = false
    if t.level == level then
      t.ahead = false
      levels.contribute(t, 0, 0)
    end
  end
end

-- Virtual time never trails the front.
function levels.settle(level)
  local front = levels.front(level)
  if front > level.mark then level.mark = front end
  if level.mark > level.virtual then level.virtual = level.mark end
  drop_passed(level)
end

-- A tenant's part in its level's sums.
function levels.contribute(t, weight, running)
  local level = t.level
  level.weight = level.weight + weight - t.counted_weight
  level.running = level.running + running - t.counted_running
  t.counted_weight, t.counted_running = weight, running
end

-- worker_time: virtual time moves by the service given to counted tenants over their weight, in steps that drop each
-- one whom it passes. A level is moved when the first of its members is touched in a call, before anything of it changes,
-- so its sums have held since it was moved last.
function levels.move(level)
  local left = clock.served_to - level.at
  if left == 0 then return end
  level.at = clock.served_to
  if not conf.by_time then return end
  left = left / 1000000
  drop_passed(level)
  while left > 0 and level.weight > 0 and level.running > 0 do
    local rate = level.running / (level.weight / 1000)
    local passed = level.ahead_first and level.ahead_tag or math.huge
    local step = math.min(left, (passed - level.virtual) / rate)
    if step < left then level.virtual = passed else level.virtual = level.virtual + rate * step end
    left = left - step
    drop_passed(level)
  end
end

-- round_robin: virtual time moves by each charge over the weight of those who compete.
function levels.charge(level, charge)
  if not conf.by_time and level.weight > 0 then
    level.virtual = level.virtual + charge / (level.weight / 1000)
    drop_passed(level)
  end
end

-- Into the set of the ready, or out of it; `had`: whether it was there, `moved`: whether its tag is another.
function levels.put_ready(t, wanted, had, moved)
  local level = t.level
  if wanted then
    if had and not moved then return end
    if level.ready_known and level.ready_first == t.user then
      if not level.second or levels.before(t.tag, t.user, level.second_tag, level.second) then
        level.ready_tag, level.unwritten = t.tag, t
        return
      end
      level.unwritten = t
      levels.forget_front(level)
    else
      call('ZADD', level.ready, t.tag, t.user)
      if level.ready_known then levels.forget_front(level) end
    end
  elseif had then
    if level.unwritten == t then level.unwritten = nil end
    call('ZREM', level.ready, t.user)
    if level.ready_known then levels.forget_front(level) end
  end
end

function levels.put_ahead(t, wanted, had, moved)
  if wanted then
    if had and not moved then return end
    call('ZADD', t.level.ahead, t.tag, t.user)
  elseif had then
    call('ZREM', t.level.ahead, t.user)
  else
    return
  end
  t.level.ahead_known = false
end

-- What is served now belongs to the window's newer bucket.
function levels.roll(level)
  local bucket = math.floor(clock.now / WINDOW)
  if bucket == level.window then return end
  local way = level.past + level.virtual
  if bucket == level.window + 1 then
    level.virtual_before, level.served_before = level.virtual_now, level.served_now
  else
    level.virtual_before, level.served_before = way, 0
  end
  level.window, level.virtual_now, level.served_now = bucket, way, 0
end

-- Where nothing is ready or ahead, virtual time starts again at 0, so that tags cannot grow without limit.
function levels.restart(level)
  level.past = level.past + level.virtual
  level.virtual, level.mark, level.generation = 0, 0, level.generation + 1
end
