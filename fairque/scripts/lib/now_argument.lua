-- EXPORTS server_now
-- Time in tests: the caller's, behind the other settings, so that hours run in seconds.
local function server_now(settings)
  return (struct.unpack('>d', settings, #settings - 7))
end
