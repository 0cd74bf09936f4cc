-- set_policy: what a tenant may use; it acts on the backlog that is there
-- KEYS  clock
-- ARGV  prefix settings user policy
-- FLAGS
-- INCLUDE prelude keys clock policies tenants scheduler wake finish_call
-- `policy`: packed map (weight in thousandths, max_concurrency, paused, ...), or '' to forget it.
-- REPLY 1
-- ERRORS FQ_GROUP there is no such group
local fields = policy ~= '' and cmsgpack.unpack(policy)
if fields and fields.group and call('HEXISTS', keys.groups, fields.group) == 0 then refuse('GROUP', fields.group) end
scheduler.advance()
local t = tenants.get(user)
if fields then call('HSET', keys.policies, user, policy) else call('HDEL', keys.policies, user) end
scheduler.set_limits(t, policies.of(user))
wake.one_if_ready()
finish_call()
return 1
