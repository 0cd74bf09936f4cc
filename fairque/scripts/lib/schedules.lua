-- INCLUDE prelude keys states record clock tenants scheduler tasks store writes leader
-- EXPORTS schedules
-- What is kept of a schedule, and how its runs come in.
--
-- An entry: digest (of the definition), paused (0 or 1), cursor (µs: up to there every tick is decided), last (the id of
-- its last run), source (who declared it, '' for nobody), plan and answer (of the last plan that was taken), problem
-- (why a run could not be pushed: text, or behind '#' a code and detail as push has them), definition (as the client encoded it).
--
-- With overlap "queue", runs wait deferred, in a list behind the run that is not over: {prefix}:schedules:waiting:{name}.
local HISTORY = 50
local CHAIN = 500
local RECHECK = 15000000
local WATCH = 60000
local NEVER = 'inf'
local schedules = {}

function schedules.get(name)
  local packed = call('HGET', keys.schedules, name)
  local whole, parts = pcall(cmsgpack.unpack, packed or '')
  if not whole or type(parts) ~= 'table' then return nil end
  local entry = {}
  entry.digest, entry.paused, entry.cursor, entry.last, entry.source, entry.plan, entry.answer, entry.problem,
    entry.definition = unpack(parts)
  return entry
end

function schedules.save(name, entry)
  call('HSET', keys.schedules, name, cmsgpack.pack({entry.digest, entry.paused, entry.cursor, entry.last, entry.source,
    entry.plan, entry.answer, entry.problem, entry.definition}))
end

-- What a plan, or a change, was made from: it holds only as long as this is the same.
function schedules.version(entry)
  return table.concat({entry.digest, entry.paused, string.format('%.17g', entry.cursor), entry.last, entry.source}, ' ')
end

-- When to look at it next (µs, or NEVER); in between, too, while runs wait.
function schedules.look_at(name, look)
  if call('EXISTS', keys.waiting(name)) == 1 then look = math.min(tonumber(look), clock.now + RECHECK) end
  call('ZADD', keys.schedules_due, look == math.huge and NEVER or string.format('%.17g', tonumber(look)), name)
end

-- Whether a run is not over; one that waits is not.
function schedules.is_active(id)
  local rec = id ~= '' and record.load(id)
  return rec and (rec.state == QUEUED or rec.state == STARTED or rec.state == SCHEDULED or rec.state == DEFERRED) or false
end

-- Whether its last run is not over, or others still wait before that.
function schedules.is_busy(name, entry)
  return schedules.is_active(entry.last) or call('EXISTS', keys.waiting(name)) == 1
end

-- The leader hears when the run ends.
local function watch(id)
  local rec = record.load(id)
  if not rec then return end
  call('SADD', keys.watchers(id), NEWS)
  call('PEXPIRE', keys.watchers(id), WATCH)
  if not record.has(rec, WATCHED) then
    record.mark(rec, WATCHED)
    record.save(id, rec)
  end
end

-- new -> deferred
local function defer(name, id, rec, after)
  local at = clock.tick()
  rec.created, rec.enqueued, rec.entered, rec.state = at, at, at, DEFERRED
  writes.record(keys.task(id), record.whole(rec))
  writes.move(id, 0, DEFERRED, at)
  tenants.count(tenants.get(rec.user), 'delayed', 1)
  if call('EXISTS', keys.waiting(name)) == 0 then
    call('RPUSH', keys.waiting(name), after)
    watch(after)
  end
  call('RPUSH', keys.waiting(name), id)
end

-- new -> queued, or deferred behind `after` (an id, or '') if that is not over. Its code and detail as push has them,
-- and whether it is the run of an earlier call that lost its reply.
function schedules.run(name, id, rec, after)
  local code, detail = store.existing(id, rec, 'reject', -1)
  if code then return code, detail, code == 1 end
  code, detail = store.refusal(rec)
  if code then return code, detail, false end
  if after ~= '' then writes.flush() end -- it may be of the same call
  if after ~= '' and (call('EXISTS', keys.waiting(name)) == 1 or schedules.is_active(after)) then
    defer(name, id, rec, after)
  else
    store.put(id, rec, 0, -1)
  end
  return 1, id, false
end

-- deferred -> queued: the first that waits, if the run before it is over. Whether that was so.
function schedules.release(name)
  local list = keys.waiting(name)
  local before = call('LINDEX', list, 0)
  local released = false
  for _ = 1, CHAIN do
    if not before or schedules.is_active(before) then break end
    call('LPOP', list)
    before = call('LINDEX', list, 0)
    local rec = before and record.load(before)
    -- Another state: somebody has canceled it, or has made it a dead letter, while it waited.
    if rec and rec.state == DEFERRED then
      if not released then scheduler.advance() end
      released = true
      rec.enqueued = clock.tick()
      local t = tasks.enqueue(before, rec, false)
      tasks.move(before, rec, QUEUED, rec.enqueued)
      record.save(before, rec)
      scheduler.place(t)
    end
  end
  if before and call('LLEN', list) == 1 then
    call('DEL', list)
  elseif before then
    watch(before)
  end
  return released
end

-- One more entry of its history, newest first: at, outcome, first and last tick, how many, task id. Neighbours that were
-- left out for the same reason are one entry.
function schedules.note(name, outcome, first, last, count, id)
  local list = keys.history(name)
  if id == '' then
    local newest = call('LINDEX', list, 0)
    local entry = newest and cmsgpack.unpack(newest)
    if entry and entry[2] == outcome and entry[6] == '' then
      call('LSET', list, 0, cmsgpack.pack({clock.now, outcome, entry[3], last, entry[5] + count, ''}))
      return
    end
  end
  call('LPUSH', list, cmsgpack.pack({clock.now, outcome, first, last, count, id}))
  call('LTRIM', list, 0, HISTORY - 1)
end
