-- set_rules: what tenants without a policy of their own may use, by pattern; it acts on the backlogs that are there
-- KEYS  clock
-- ARGV  prefix settings rules
-- FLAGS
-- INCLUDE prelude keys clock scheduler wake finish_call
-- `rules`: packed list of a Lua pattern and a policy each, of which the first that fits counts, or ''. A tenant is placed
-- anew when it is next touched, at the latest by the renewal that goes with heartbeats.
-- REPLY 1
-- ERRORS FQ_GROUP there is no such group
for _, rule in ipairs(rules ~= '' and cmsgpack.unpack(rules) or {}) do
  local group = rule[2].group
  if group and call('HEXISTS', keys.groups, group) == 0 then refuse('GROUP', group) end
end
scheduler.advance()
if rules == '' then call('DEL', keys.rules) else call('SET', keys.rules, rules) end
clock.rules, clock.renewing = clock.rules + 1, 1
scheduler.renew(500)
wake.one_if_ready()
finish_call()
return 1
