-- rights: which commands this user may not use on the keys of this queue
-- KEYS  clock
-- ARGV  prefix settings names...
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY those of the names (a command, or command|subcommand) that the user lacks
-- Those that say how many keys they have; else each argument may be one.
local NUMBERED = {fcall = true, blmpop = true}
local lacking = {}
for i = NAMES, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[i], '[^|]+') do words[#words + 1] = word end
  if NUMBERED[ARGV[i]] then
    words[2], words[3], words[4], words[5] = '1', '1', keys.clock, 'LEFT'
  elseif not words[2] then
    words[2], words[3], words[4], words[5] = keys.clock, keys.clock, keys.clock, keys.clock
  end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then lacking[#lacking + 1] = ARGV[i] end
end
return lacking
