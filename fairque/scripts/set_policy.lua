-- set_policy: what a tenant may use; it acts on the backlog that is there
-- KEYS  clock
-- ARGV  prefix settings user policy
-- FLAGS
-- INCLUDE prelude keys clock tenants wake finish_call
-- `policy`: packed map (weight in thousandths, max_concurrency, paused, ...), or '' to forget it.
-- REPLY 1
tenants.advance()
local t = tenants.get(user)
local fields = policy ~= '' and cmsgpack.unpack(policy) or {weight = 1000}
-- What a tenant owes is service: its distance to virtual time scales with the weight.
if fields.weight ~= t.weight and (t.ready or t.running > 0 or t.tag > clock.virtual) then
  local ratio = t.weight / fields.weight
  local zero = t.ready and (clock.front()) or clock.virtual
  t.tag = zero + (t.tag - zero) * ratio
  t.floor = zero + (t.floor - zero) * ratio
end
t.weight, t.cap, t.paused = fields.weight, fields.max_concurrency or 0, fields.paused == true
if policy ~= '' then call('HSET', keys.policies, user, policy) else call('HDEL', keys.policies, user) end
tenants.place(t)
wake.one_if_ready()
finish_call()
return 1
