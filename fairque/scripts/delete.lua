-- delete: any state but started -> gone
-- KEYS  clock
-- ARGV  prefix settings ids...
-- FLAGS allow-oom
-- INCLUDE prelude record clock scheduler actions finish_call
-- REPLY for each id: 1 deleted, 0 not there, -1 it is running
scheduler.advance()
local reply = {}
for i = IDS, #ARGV do
  reply[#reply + 1] = actions.delete(ARGV[i], record.load(ARGV[i]))
end
finish_call()
return reply
