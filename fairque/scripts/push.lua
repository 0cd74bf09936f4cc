-- push: new -> queued | scheduled
-- KEYS  clock
-- ARGV  prefix settings items...
-- FLAGS
-- INCLUDE prelude states record clock tenants tasks stats wake finish_call
-- Items: id, record, due, on_duplicate, dedup_window for each task. `due`: µs of the server's clock, or minus a delay
-- in µs, or 0. `on_duplicate`: reject | return. `dedup_window` in ms: -1 no key, 0 until the task has ended.
-- REPLY for each item: code, id. 1 stored, 2 an existing task is returned, 0 refused: the id or key is taken (by id).
local reply = {}
local earliest
local stored = 0

local function existing(id, rec, on_duplicate, window)
  local held = call('GETRANGE', keys.task(id), 0, HEAD_AND_NAMES - 1)
  if held ~= '' then
    local old = record.parse(held)
    -- A replay of this very push: its reply was lost.
    if old and old.op_size > 0 and record.op(old) == record.op(rec) then return 1, id end
    return on_duplicate == 'return' and 2 or 0, id
  end
  if window >= 0 then
    local holder = call('GET', keys.dedup(rec.user, record.dedup(rec)))
    if holder then
      local other = record.load(holder)
      if window > 0 or (other and TRANSITIONS[other.state] and other.state ~= FINISHED and other.state ~= FAILED
          and other.state ~= CANCELED) then
        return on_duplicate == 'return' and 2 or 0, holder
      end
    end
  end
end

local function store(id, rec, due, window)
  -- Not before: a call that stores nothing writes nothing.
  if stored == 0 then tenants.advance() end
  local at = clock.tick()
  if due < 0 then due = at - due end
  rec.created, rec.enqueued, rec.entered = at, at, at
  rec.state = due > at and SCHEDULED or QUEUED
  if rec.state == SCHEDULED then rec.entered = due end
  call('SET', keys.task(id), record.whole(rec))
  call('ZADD', keys.state(STATE_NAMES[rec.state]), rec.entered, id)
  if rec.expires > 0 then call('ZADD', keys.expiring, rec.expires, id) end
  if window > 0 then
    call('SET', keys.dedup(rec.user, record.dedup(rec)), id, 'PX', window)
  elseif window == 0 then
    call('SET', keys.dedup(rec.user, record.dedup(rec)), id)
  end
  if rec.state == QUEUED then
    tenants.place(tasks.enqueue(id, rec, false))
  elseif not earliest or due < earliest then
    earliest = due
  end
  stored = stored + 1
end

for i = ITEMS, #ARGV, 5 do
  local id, rec = ARGV[i], record.parse(ARGV[i + 1])
  local window = tonumber(ARGV[i + 4])
  local code, holder = existing(id, rec, ARGV[i + 3], window)
  if not code then
    code, holder = 1, id
    store(id, rec, tonumber(ARGV[i + 2]), window)
  end
  reply[#reply + 1] = code
  reply[#reply + 1] = holder
end
if stored > 0 then
  stats.add('pushed', stored)
  wake.one_if_ready()
  -- An earlier due time than anybody waits for: somebody must set a new alarm.
  if earliest and (clock.timer == 0 or earliest < clock.timer or clock.timer < clock.now) then
    clock.timer = 0
    wake.one()
  end
  finish_call()
end
return reply
