-- INCLUDE prelude
-- EXPORTS server_now
-- Time in production: the server's, as whole microseconds. Read once a call, since TIME moves inside a script on
-- Redis 7.0 and stands still on others.
local function server_now()
  local time = call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end
