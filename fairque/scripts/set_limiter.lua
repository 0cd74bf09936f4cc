-- set_limiter: what the tasks under a named limiter may use together
-- KEYS  clock
-- ARGV  prefix settings name policy
-- FLAGS
-- INCLUDE prelude keys clock policies limits scheduler wake finish_call
-- `policy`: packed map (max_concurrency, rate_limit, burst), or '' to forget it: its tasks are then not limited.
-- REPLY 1
scheduler.advance()
local limiter = limits.get(name)
if policy == '' then call('HDEL', keys.limiters, name) else call('HSET', keys.limiters, name, policy) end
limits.set(limiter, policies.of_limiter(name))
if limiter.parked then wake.one() end
finish_call()
return 1
