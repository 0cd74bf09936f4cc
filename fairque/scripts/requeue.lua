-- requeue: failed | canceled -> queued | deferred: a new run under the same id
-- KEYS  clock
-- ARGV  prefix settings ids...
-- FLAGS allow-oom
-- INCLUDE prelude record clock scheduler actions wake finish_call
-- REPLY for each id: 1 queued, 0 not there, or minus its state
scheduler.advance()
local reply = {}
for i = IDS, #ARGV do
  local rec = record.load(ARGV[i])
  reply[#reply + 1] = rec and actions.requeue(ARGV[i], rec) or 0
end
wake.one_if_ready()
finish_call()
return reply
