-- list_policies: one page of what was set for users, groups or limiters
-- KEYS  clock
-- ARGV  prefix settings kind cursor
-- FLAGS no-writes
-- INCLUDE prelude keys
-- `kind`: user | group | limiter. `cursor`: 0, then that of the page before.
-- REPLY next cursor (0 at the end), then name, packed for each
local hash = kind == 'user' and keys.policies or kind == 'group' and keys.groups or keys.limiters
local page = call('HSCAN', hash, cursor, 'COUNT', 500)
local reply = {page[1]}
for _, part in ipairs(page[2]) do reply[#reply + 1] = part end
return reply
