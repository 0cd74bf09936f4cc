-- set_group: what an organisation may use; it acts on the backlog of its members
-- KEYS  clock
-- ARGV  prefix settings group policy
-- FLAGS
-- INCLUDE prelude keys clock policies tenants scheduler wake finish_call
-- `policy`: as of a user, or '' to forget the organisation, whose members then stand alone.
-- REPLY 1
-- ERRORS FQ_GROUP_USED its members have tasks (how many)
local t = tenants.get(':' .. group)
local tasks_left = t.normal + t.delayed + t.running
if policy == '' and tasks_left > 0 then refuse('GROUP_USED', group .. ' ' .. tasks_left) end
scheduler.advance()
local known = call('HEXISTS', keys.groups, group) == 1
if policy == '' then call('HDEL', keys.groups, group) else call('HSET', keys.groups, group, policy) end
if known ~= (policy ~= '') then
  -- Users whose policies name it are to look again.
  clock.rules, clock.renewing = clock.rules + 1, 1
end
scheduler.set_limits(t, policies.of_group(group))
if clock.renewing > 0 then scheduler.renew(500) end
wake.one_if_ready()
finish_call()
return 1
