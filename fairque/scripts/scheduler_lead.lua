-- scheduler_lead: which scheduler decides ticks: one takes or renews that office, or gives it up
-- KEYS  clock
-- ARGV  prefix settings what who token lease
-- FLAGS allow-oom
-- INCLUDE prelude keys clock leader
-- `what`: take | resign. `token`: what the caller has, or 0. `lease` in µs.
-- REPLY 1 if the caller leads now, its token, now, the leader's name ('' for none) and deadline, when to look next (µs, or
-- inf), how many schedules there are and how many of them have a time to look; times as text
-- ERRORS FQ_LEADER one resigns who does not lead
if what == 'resign' then
  leader.require(who, token)
  call('DEL', keys.leader)
else
  local found, current = leader.get()
  if not found then
    clock.tokens = clock.tokens + 1
    leader.put(who, clock.tokens, tonumber(lease))
    clock.save()
  elseif found == who then
    leader.put(who, current, tonumber(lease))
  end
end
local found, current, deadline = leader.get()
local nearest = call('ZRANGE', keys.schedules_due, 0, 0, 'WITHSCORES')[2] or 'inf'
return {found == who and 1 or 0, string.format('%.17g', current or 0), string.format('%.17g', clock.now), found or '',
  string.format('%.17g', deadline or 0), nearest, call('HLEN', keys.schedules), call('ZCARD', keys.schedules_due)}
