-- delete_user: a user who has no tasks left is forgotten, with policy and counters
-- KEYS  clock
-- ARGV  prefix settings user
-- FLAGS allow-oom
-- INCLUDE prelude keys clock tenants scheduler policies finish_call
-- REPLY 1 forgotten, 0 refused: it has tasks; then how many are queued, delayed, running and dead letters
local t = tenants.get(user)
local critical, normal, limited = tenants.lengths(user)
local dead = redis.pcall('ZCARD', keys.dlq(user))
if type(dead) ~= 'number' then dead = 0 end
local queued = critical + normal + limited
if queued + t.delayed + t.running + dead > 0 then return {0, queued, t.delayed, t.running, dead} end
scheduler.advance()
call('HDEL', keys.policies, user)
scheduler.set_limits(t, policies.of(user))
finish_call()
call('UNLINK', keys.user(user), keys.costs(user), keys.retries(user), keys.limiters_of(user), keys.dlq(user), keys.critical(user),
  keys.normal(user))
for _, list in ipairs({keys.users, keys.by_backlog, keys.by_service, keys.by_wait, keys.by_dead, keys.holders, keys.fresh}) do
  call('ZREM', list, user)
end
return {1, 0, 0, 0, 0}
