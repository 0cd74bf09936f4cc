-- get_users: tenants' queues, counters and places
-- KEYS  clock
-- ARGV  prefix settings users...
-- FLAGS no-writes
-- INCLUDE prelude keys clock shown
-- REPLY the clock's (lib/shown.lua), then nine values for each user
local rows = {}
for i = USERS, #ARGV do shown.user(rows, ARGV[i]) end
return {shown.clock(), rows}
