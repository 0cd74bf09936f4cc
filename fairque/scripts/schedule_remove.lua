-- schedule_remove: schedules are no more; runs that wait for one before them still come
-- KEYS  clock
-- ARGV  prefix settings source names...
-- FLAGS allow-oom
-- INCLUDE prelude keys clock schedules leader
-- `source`: only those that it declared, or * for all.
-- REPLY for each name: 1 removed, 0 there is none
local reply = {}
for i = NAMES, #ARGV do
  local name = ARGV[i]
  local entry = schedules.get(name)
  local removed = entry and (source == '*' or entry.source == source)
  if removed then
    call('HDEL', keys.schedules, name)
    call('DEL', keys.history(name))
    if call('EXISTS', keys.waiting(name)) == 0 then call('ZREM', keys.schedules_due, name) else schedules.look_at(name, 0) end
  end
  reply[#reply + 1] = removed and 1 or 0
end
leader.wake()
return reply
