-- delete: any state but started -> gone
-- KEYS  clock
-- ARGV  prefix settings ids...
-- FLAGS allow-oom
-- INCLUDE prelude states record clock tenants scheduler tasks stats finish_call
-- REPLY for each id: 1 deleted, 0 not there, -1 it is running
scheduler.advance()
local reply = {}
for i = IDS, #ARGV do
  local id = ARGV[i]
  local rec = record.load(id)
  if rec and rec.state == STARTED then
    reply[#reply + 1] = -1
  else
    if rec then
      local t = tenants.get(rec.user)
      if rec.state == QUEUED then tasks.dequeue(id, rec) end
      if rec.state == SCHEDULED or rec.state == DEFERRED then tenants.count(t, 'delayed', -1) end
      if rec.state == FAILED then call('ZREM', keys.dlq(rec.user), id) end
      if rec.dedup_size > 0 then
        local key = keys.dedup(rec.user, record.dedup(rec))
        if call('GET', key) == id then call('DEL', key) end
      end
      call('ZREM', keys.state(STATE_NAMES[rec.state]), id)
      if rec.expires > 0 then call('ZREM', keys.expiring, id) end
      if record.has(rec, UNKNOWN) then call('ZREM', keys.passed, id) end
      scheduler.place(t)
      stats.add('deleted')
    end
    reply[#reply + 1] = call('DEL', keys.task(id))
    call('DEL', keys.result(id), keys.errors(id), keys.progress(id), keys.watchers(id))
    if rec and record.has(rec, LINKED) then
      if rec.state == FINISHED or rec.state == FAILED or rec.state == CANCELED then
        call('UNLINK', keys.upstream(id))
      else
        tasks.tell_of(id, 0, 0)
      end
    end
  end
end
finish_call()
return reply
