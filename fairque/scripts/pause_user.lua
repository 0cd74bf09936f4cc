-- pause_user: a tenant's tasks wait, or go on; the rest of its policy stays
-- KEYS  clock
-- ARGV  prefix settings user paused
-- FLAGS allow-oom
-- INCLUDE prelude keys clock policies tenants scheduler wake finish_call
-- REPLY 1
scheduler.advance()
local t = tenants.get(user)
local packed = call('HGET', keys.policies, user)
local fields = packed and cmsgpack.unpack(packed) or {inherits = true}
fields.paused = paused == '1'
if fields.inherits and not fields.paused then
  call('HDEL', keys.policies, user)
else
  call('HSET', keys.policies, user, cmsgpack.pack(fields))
end
scheduler.set_limits(t, policies.of(user))
wake.one_if_ready()
finish_call()
return 1
