-- get_policies: what was set for one user, group or limiter, or the rules
-- KEYS  clock
-- ARGV  prefix settings kind name
-- FLAGS no-writes
-- INCLUDE prelude keys
-- `kind`: user | group | limiter | rules
-- REPLY packed, or ''
if kind == 'rules' then return call('GET', keys.rules) or '' end
local hash = kind == 'user' and keys.policies or kind == 'group' and keys.groups or keys.limiters
return call('HGET', hash, name) or ''
