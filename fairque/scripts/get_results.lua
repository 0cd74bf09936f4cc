-- get_results: how tasks have ended, and what they returned
-- KEYS  clock
-- ARGV  prefix settings ids...
-- FLAGS no-writes
-- INCLUDE prelude keys record
-- REPLY for each id: its state (0: there is no such task), its result or nothing; fewer than were asked for if they are large
local MOST = 4194304
local reply, bytes = {}, 0
for i = IDS, #ARGV do
  local rec = record.load(ARGV[i])
  local result = rec and call('GET', keys.result(ARGV[i]))
  bytes = bytes + (result and #result or 0)
  reply[#reply + 1] = rec and rec.state or 0
  reply[#reply + 1] = result
  if bytes >= MOST then break end
end
return reply
