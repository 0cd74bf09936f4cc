-- pause_user: a tenant's tasks wait, or go on; the rest of its policy stays
-- KEYS  clock
-- ARGV  prefix settings user paused
-- FLAGS allow-oom
-- INCLUDE prelude keys clock tenants wake finish_call
-- REPLY 1
tenants.advance()
local t = tenants.get(user)
local policy = call('HGET', keys.policies, user)
local fields = policy and cmsgpack.unpack(policy) or {weight = 1000}
fields.paused = paused == '1'
t.paused = fields.paused
local count = 0
for _ in pairs(fields) do count = count + 1 end
if count == 2 and fields.weight == 1000 and not fields.paused then
  call('HDEL', keys.policies, user)
else
  call('HSET', keys.policies, user, cmsgpack.pack(fields))
end
tenants.place(t)
wake.one_if_ready()
finish_call()
return 1
