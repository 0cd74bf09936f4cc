-- schedule_history: what became of a schedule's last ticks, newest first
-- KEYS  clock
-- ARGV  prefix settings name
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY 1 if there is such a schedule, then the entries, packed (lib/schedules.lua)
local reply = {call('HEXISTS', keys.schedules, name)}
for _, entry in ipairs(call('LRANGE', keys.history(name), 0, -1)) do reply[#reply + 1] = entry end
return reply
