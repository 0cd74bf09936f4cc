-- INCLUDE prelude keys states record clock tenants scheduler tasks store writes
-- EXPORTS debounce
-- A push that takes the place of an earlier one with the same deduplication key, as long as nobody has claimed that: the
-- earlier task keeps its id and its first moment, gets all else of the later one, and waits for the window once more.
local JOINED = 11
local debounce = {}

-- What was claimed once may have begun, also if it waits again: then a later push is a task of its own.
local function can_join(old, rec)
  return old and (old.state == QUEUED or old.state == SCHEDULED) and old.holder == NO_HOLDER and old.run == 0
    and record.dedup(old) == record.dedup(rec)
end

-- When it is due once more: `longest` µs after its first push at most (0: however long it takes).
local function due_of(old, window, longest)
  local due = clock.now + window * 1000
  return longest > 0 and math.min(due, old.created + longest) or due
end

-- The new record moves in where the old one was.
local function replace(id, old, rec, due)
  if old.state == QUEUED then tasks.dequeue(id, old) end
  rec.created, rec.state, rec.entered, rec.enqueued = old.created, old.state, old.entered, old.enqueued
  rec.flags = bit.bor(bit.band(old.flags, bit.bnot(UNDER_LIMITER)), bit.band(rec.flags, UNDER_LIMITER))
  if rec.expires > 0 then
    call('ZADD', keys.expiring, rec.expires, id)
  elseif old.expires > 0 then
    call('ZREM', keys.expiring, id)
  end
  if due <= clock.now and old.state == QUEUED then
    tasks.enqueue(id, rec, true)
  elseif due <= clock.now then
    rec.enqueued = clock.tick()
    tasks.enqueue(id, rec, false)
    tasks.move(id, rec, QUEUED, rec.enqueued)
  elseif old.state == QUEUED then
    tasks.move(id, rec, SCHEDULED, due)
  else
    writes.move(id, SCHEDULED, SCHEDULED, due)
    rec.entered = due
  end
  call('SET', keys.task(id), record.whole(rec))
end

-- `window` in ms, `longest` in µs. The code and id that push answers if the task is not to be stored, and when the one that
-- it joined is due, if that still waits for its time. Nothing if it is to be stored.
function debounce.join(id, rec, window, longest)
  local code, detail = store.existing(id, rec, 'reject', -1)
  if code then return code, detail end
  local key = keys.dedup(rec.user, record.dedup(rec))
  local holder = call('GET', key)
  if not holder then return end
  writes.flush() -- it may have come with the same call
  local old = record.load(holder)
  if not can_join(old, rec) then return end
  if record.op(old) == record.op(rec) then return JOINED, holder end
  code, detail = store.unknown_limiter(rec)
  if code then return code, detail end
  scheduler.advance()
  local due = due_of(old, window, longest)
  replace(holder, old, rec, due)
  call('SET', key, holder)
  scheduler.place(tenants.get(rec.user))
  return JOINED, holder, rec.state == SCHEDULED and due or nil
end
