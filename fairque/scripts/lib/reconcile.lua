-- INCLUDE prelude keys states record clock stats repairs assigned tenants scheduler tasks letters holdings mend
-- EXPORTS reconcile
-- Whatever is stored twice is compared and mended: keys can be lost, or overwritten by hand. What workers hold says what
-- runs, queues say what waits, and records of tasks say where these belong; all else follows. A little of it goes with
-- each sweep, all of it with reconcile.lua. While nothing is amiss nothing is written.
local WALK, MOST, RECENT, SAMPLE, TRIM, SCAN = 20, 500, 50, 20, 50, 500
local LONG = 1000
local MANY_TENANTS = 5000
local reconcile = {}

-- Who serves whom.
local function check_assignment()
  if not assigned.check() then
    repairs.mended('queue', 'assignment of users', 'damaged', 'published anew by the next worker that starts')
  end
end

-- Claims, and all counts that follow from them: at once.
function reconcile.claims()
  check_assignment()
  mend.root(MANY_TENANTS)
  for _, id in ipairs(holdings.check()) do reconcile.task(id) end
  for user in pairs(holdings.all().users) do mend.user(user) end
  for limiter in pairs(holdings.all().limiters) do mend.limiter(limiter) end
end

-- Tasks.

-- What is broken counts as a queue here: that is mended first (reconcile.broken).
local function is_queued(id, rec, limiter)
  if limiter or rec.priority ~= CRITICAL then
    return redis.pcall('ZSCORE', limiter and keys.limited(rec.user, limiter) or keys.normal(rec.user), id) ~= false
  end
  -- A long list is looked at no further than to see that it is there.
  local length = redis.pcall('LLEN', keys.critical(rec.user))
  if type(length) ~= 'number' or length > LONG then return true end
  return call('LPOS', keys.critical(rec.user), id) ~= false
end

local function check_queue(name, id, rec)
  local limiter = record.limiter(rec)
  if limiter and redis.pcall('SISMEMBER', keys.limiters_of(rec.user), limiter) == 0 then
    tenants.queued_under(tenants.get(rec.user), limiter)
    repairs.mended('user ' .. rec.user, 'limiters', 'without ' .. limiter, 'with it')
    mend.user(rec.user)
  end
  if not is_queued(id, rec, limiter) then
    local t = tenants.get(rec.user)
    tenants.sync(t)
    tasks.enqueue(id, rec, true)
    tenants.sync(t)
    scheduler.place(t)
    repairs.mended(name, 'queue', 'none', 'that of ' .. rec.user)
  end
end

-- A task is where its record says that it belongs.
function reconcile.task(id)
  repairs.look()
  local rec = record.load(id)
  if not rec then return end
  local name, registry = 'task ' .. id, keys.state(STATE_NAMES[rec.state])
  if not call('ZSCORE', registry, id) then
    call('ZADD', registry, rec.entered, id)
    repairs.mended(name, 'registry', 'none', STATE_NAMES[rec.state])
  end
  local waits = rec.state == QUEUED or rec.state == SCHEDULED or rec.state == DEFERRED
  if rec.state == QUEUED then
    check_queue(name, id, rec)
  elseif rec.state == FAILED and redis.pcall('ZSCORE', keys.dlq(rec.user), id) == false then
    call('ZADD', keys.dlq(rec.user), rec.entered, id)
    letters.recount(rec.user)
    repairs.mended(name, 'dead letters', 'none', 'those of ' .. rec.user)
  elseif rec.state == SCHEDULED and record.has(rec, UNKNOWN) and not call('ZSCORE', keys.passed, id) then
    call('ZADD', keys.passed, clock.now, id)
    repairs.mended(name, 'passed on', 'no', 'yes')
  end
  if rec.expires > 0 and waits and not call('ZSCORE', keys.expiring, id) then
    call('ZADD', keys.expiring, rec.expires, id)
    repairs.mended(name, 'expiry', 'none', string.format('%.0f', rec.expires))
  end
  if (waits or rec.state == STARTED) and not call('ZSCORE', keys.users, rec.user) then
    call('ZADD', keys.users, clock.now, rec.user)
    repairs.mended('user ' .. rec.user, 'known', 'no', 'yes')
  end
end

-- One page of a registry: what does not belong there leaves. Returns the next offset, -1 at the end.
function reconcile.registry(state, offset)
  local registry = keys.state(state)
  local ids = call('ZRANGE', registry, offset, offset + MOST - 1)
  local removed = 0
  for _, id in ipairs(ids) do
    repairs.look()
    local rec = record.load(id)
    if not rec or STATE_NAMES[rec.state] ~= state then
      removed = removed + call('ZREM', registry, id)
      repairs.mended('task ' .. id, 'registry', state, rec and STATE_NAMES[rec.state] or 'gone')
    end
  end
  return #ids == MOST and offset + MOST - removed or -1
end

-- Some of all tasks that are stored, since some may be in no registry. Returns where to go on, '0' at the end.
function reconcile.scan(cursor)
  local start = keys.task('')
  local page = call('SCAN', cursor, 'MATCH', start .. '*', 'COUNT', SCAN)
  for _, key in ipairs(page[2]) do reconcile.task(string.sub(key, #start + 1)) end
  return page[1]
end

-- What somebody has put in the place of a user's queue goes, and with it what stood in the queue, which is found by scan().
local function drop_unless(kind, key, name, what)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    call('UNLINK', key)
    repairs.mended(name, what, 'a ' .. found, 'a queue')
  end
end

function reconcile.broken(user)
  local name = 'user ' .. user
  drop_unless('list', keys.critical(user), name, 'critical')
  drop_unless('zset', keys.normal(user), name, 'normal')
  drop_unless('set', keys.limiters_of(user), name, 'limiters')
  for _, limiter in ipairs(call('SMEMBERS', keys.limiters_of(user))) do
    drop_unless('zset', keys.limited(user, limiter), name, 'queue under ' .. limiter)
  end
  drop_unless('zset', keys.dlq(user), name, 'dead letters')
  letters.recount(user)
end

-- Users.

-- The next users, and all that came at the same time as the last of them (with one call, so there are not many). Returns
-- where to go on, 0 at the end.
function reconcile.walk(from, limit, visit)
  local users = call('ZRANGEBYSCORE', keys.users, string.format('%.17g', from), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local seen = {}
  for i = 1, #users, 2 do
    seen[users[i]] = true
    visit(users[i])
  end
  if #users < 2 * limit then return 0 end
  local last = users[#users]
  for _, user in ipairs(call('ZRANGEBYSCORE', keys.users, last, last)) do
    if not seen[user] then visit(user) end
  end
  return tonumber(last) + 1
end

-- What goes with a sweep.

-- On through what there is to look at, as long as there is something amiss.
local function go_on(step)
  local done = 0
  repeat
    local before = #repairs.list
    local looked = step()
    done = done + looked
  until looked == 0 or done >= MOST or #repairs.list == before
end

-- Users whose records have expired leave the lists: more are looked for while over a quarter of those seen have.
local function trim(list)
  local left, seen, gone = TRIM, 0, 0
  repeat
    local users = call('ZRANDMEMBER', list, 10)
    seen, gone = #users, 0
    for _, user in ipairs(users) do
      if call('EXISTS', keys.user(user)) == 0 then
        gone = gone + 1
        mend.user(user)
      end
    end
    left = left - seen
  until left <= 0 or gone * 4 <= seen
end

local function sample(state)
  local registry = keys.state(state)
  go_on(function()
    local ids = call('ZRANDMEMBER', registry, SAMPLE)
    for _, id in ipairs(ids) do
      if call('EXISTS', keys.task(id)) == 1 then reconcile.task(id) else call('ZREM', registry, id) end
    end
    return #ids
  end)
end

-- Somebody has missed tasks (lib/mend.lua): all are gone through, some with each sweep. What is still missing then is lost.
local function look_for_tasks()
  local cursor = call('HGET', keys.meta, 'scan')
  if not cursor then return end
  cursor = reconcile.scan(cursor)
  if cursor ~= '0' then
    call('HSET', keys.meta, 'scan', cursor)
    return
  end
  local suspect = call('HGET', keys.meta, 'suspect')
  if suspect then
    mend.begin()
    mend.delayed(suspect)
  end
  call('HDEL', keys.meta, 'scan', 'suspect')
end

-- A few steps of the walk that goes round and round. (Who is passed over, since somebody before him leaves meanwhile, is
-- met the next time.)
local function stroll()
  local users = call('ZRANGE', keys.users, clock.walked, clock.walked + WALK - 1)
  for _, user in ipairs(users) do mend.user(user) end
  clock.walked = #users == WALK and clock.walked + WALK or 0
  return clock.walked > 0 and WALK or 0
end

-- Call before the reaper: `clock.swept` is the sweep before.
function reconcile.sweep()
  mend.write_all()
  if not holdings.agree() then
    reconcile.claims()
    stats.add('reconciled')
  end
  mend.root()
  check_assignment()
  -- Those who came, or came back, since: maybe their records had been lost.
  local recent = call('ZRANGEBYSCORE', keys.users, string.format('%.17g', clock.swept), '+inf', 'LIMIT', 0, RECENT)
  for _, user in ipairs(recent) do mend.user(user) end
  go_on(stroll)
  for _, name in ipairs(call('HRANDFIELD', keys.groups, WALK)) do mend.group(':' .. name) end
  for _, name in ipairs(call('HRANDFIELD', keys.limiters, WALK)) do mend.limiter(name) end
  for _, state in ipairs({'queued', 'scheduled', 'failed'}) do sample(state) end
  look_for_tasks()
  for _, list in ipairs({keys.users, keys.by_backlog, keys.by_service, keys.by_wait}) do trim(list) end
end
