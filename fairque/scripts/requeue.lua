-- requeue: failed | canceled -> queued | deferred: a new run under the same id
-- KEYS  clock
-- ARGV  prefix settings ids...
-- FLAGS allow-oom
-- INCLUDE prelude states record clock scheduler tenants tasks stats links wake finish_call
-- REPLY for each id: 1 queued, 0 not there, or minus its state
scheduler.advance()
local reply = {}
for i = IDS, #ARGV do
  local id = ARGV[i]
  local rec = record.load(id)
  if not rec then
    reply[#reply + 1] = 0
  elseif not (rec.state == FAILED or rec.state == CANCELED) then
    reply[#reply + 1] = -rec.state
  else
    if rec.state == FAILED then call('ZREM', keys.dlq(rec.user), id) end
    rec.run, rec.attempt, rec.retries, rec.crashes, rec.reason = rec.run + 1, 0, 0, 0, 0
    rec.flags = bit.band(rec.flags, WATCHED + UNDER_LIMITER + LINKED)
    rec.token, rec.holder, rec.enqueued, rec.expires = NO_TOKEN, NO_HOLDER, clock.tick(), 0
    call('PERSIST', keys.task(id))
    call('DEL', keys.errors(id), keys.result(id), keys.progress(id))
    if record.has(rec, LINKED) and links.again(id, rec) then
      tasks.move(id, rec, DEFERRED, rec.enqueued)
      record.save(id, rec)
    else
      local t = tasks.enqueue(id, rec, false)
      tasks.move(id, rec, QUEUED, rec.enqueued)
      record.save(id, rec)
      scheduler.place(t)
    end
    stats.add('requeued')
    reply[#reply + 1] = 1
  end
end
wake.one_if_ready()
finish_call()
return reply
