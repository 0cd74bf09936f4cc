-- update: queued -> scheduled; scheduled -> queued; or as it is: a task that waits is changed by a caller's word
-- KEYS  clock
-- ARGV  prefix settings id priority due max_retries expires body_at known options
-- FLAGS
-- INCLUDE prelude keys states record clock tenants scheduler tasks writes wake upstream links finish_call
-- What is '' stays as it is. `due`: as in push, 0: now. `expires`: µs of the server's clock, 0: never. `options`: what stands
-- in the task's body behind its first `body_at` bytes from now on, if what stands there now has the SHA-1 `known`.
-- REPLY 1 and the state; or 0 and the state: somebody else has changed the options since the caller read them
-- ERRORS FQ_NOT_FOUND; FQ_STATE it has begun or ended, or has no time of its own
local whole = known ~= ''
local rec
if whole then rec = record.load_whole(id) else rec = record.load(id) end
if not rec then refuse('NOT_FOUND', id) end
local from = rec.state
if not (from == QUEUED or from == SCHEDULED or from == DEFERRED) then
  refuse('STATE', id .. ' ' .. STATE_NAMES[from] .. ' updated')
end
if from == DEFERRED and due ~= '' and not (record.has(rec, LINKED) and upstream.meta(id)) then
  refuse('STATE', id .. ' deferred rescheduled')
end
if whole then
  local at = record.body_at(rec) + tonumber(body_at)
  if redis.sha1hex(string.sub(rec.data, at + 1)) ~= known then return {0, from} end
  rec.data = string.sub(rec.data, 1, at) .. options
end
scheduler.advance()
if from == DEFERRED and due ~= '' then links.postpone(id, tonumber(due)) end
local t = tenants.get(rec.user)
local new_priority = priority ~= '' and tonumber(priority) or rec.priority
local when = due ~= '' and tonumber(due) or nil
if when and when < 0 then when = clock.now - when end

if expires ~= '' then
  rec.expires = tonumber(expires)
  if rec.expires > 0 then call('ZADD', keys.expiring, rec.expires, id) else call('ZREM', keys.expiring, id) end
end
if max_retries ~= '' then rec.max_retries = tonumber(max_retries) end
if when and record.has(rec, UNKNOWN) then
  -- It waited for a worker that has its function: the next one that claims it says whether it has.
  record.unmark(rec, UNKNOWN)
  call('ZREM', keys.passed, id)
end

if from == QUEUED and when and when > clock.now then
  tasks.dequeue(id, rec)
  rec.priority = new_priority
  tasks.move(id, rec, SCHEDULED, when)
elseif from == QUEUED and new_priority ~= rec.priority then
  tasks.dequeue(id, rec)
  rec.priority = new_priority
  -- Its tenant has been here all the time, so this is no arrival. Where the task stands says its age; among CRITICAL ones,
  -- which go in the order in which they came, it is the last.
  local root = t.group or t
  local sparse = root.sparse
  tasks.enqueue(id, rec, new_priority ~= 6)
  root.sparse = sparse
elseif from == SCHEDULED and when and when <= clock.now then
  rec.priority, rec.enqueued = new_priority, clock.tick()
  tasks.enqueue(id, rec, false)
  tasks.move(id, rec, QUEUED, rec.enqueued)
else
  rec.priority = new_priority
  if from == SCHEDULED and when then
    writes.move(id, SCHEDULED, SCHEDULED, when)
    rec.entered = when
  end
end
if whole then call('SET', keys.task(id), record.whole(rec)) else record.save(id, rec) end
scheduler.place(t)
if rec.state == QUEUED then
  wake.one_if_ready()
elseif rec.state == SCHEDULED and when and (clock.timer == 0 or when < clock.timer or clock.timer < clock.now) then
  -- Earlier than anybody waits for: somebody must set a new alarm.
  clock.timer = 0
  wake.one()
end
finish_call()
return {1, rec.state}
