-- watch: a client wants to hear of a task
-- KEYS  clock
-- ARGV  prefix settings id client ttl
-- FLAGS allow-oom
-- INCLUDE prelude keys record
-- `ttl` in ms: for how long without renewal.
-- REPLY the record, or nothing if the task is unknown
local rec = record.load_whole(id)
if not rec then return false end
call('SADD', keys.watchers(id), client)
call('PEXPIRE', keys.watchers(id), ttl)
if not record.has(rec, WATCHED) then
  record.mark(rec, WATCHED)
  record.save(id, rec)
end
return record.whole(rec)
