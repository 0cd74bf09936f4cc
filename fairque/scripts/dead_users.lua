-- dead_users: one page of the users that have dead letters, those with most first
-- KEYS  clock
-- ARGV  prefix settings offset limit
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY for each: user, how many, since when the oldest is there (µs)
local at, reply = tonumber(offset), {}
local rows = call('ZREVRANGE', keys.by_dead, at, at + tonumber(limit) - 1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local oldest = redis.pcall('ZRANGE', keys.dlq(rows[i]), 0, 0, 'WITHSCORES')
  for _, value in ipairs({rows[i], rows[i + 1], oldest[2] or '0'}) do reply[#reply + 1] = value end
end
return reply
