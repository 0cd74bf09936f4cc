-- list_tasks: one page of a state's registry, of a user's queue or of a user's dead letters
-- KEYS  clock
-- ARGV  prefix settings source user from skip limit
-- FLAGS no-writes
-- INCLUDE prelude keys record
-- `source`: a state's name, or dlq | critical | normal (then `user` names whose). `from`, `skip`: the cursor: the score
-- to go on from, and how many of that score have been seen. With a state, `user` ('' for all) filters.
-- REPLY next from ('' at the end), next skip, then id, record for each
local BYTES = 4194304
local limit_n, skip_n = tonumber(limit), tonumber(skip)
local rows
local at_from
if source == 'critical' then
  rows, at_from = {}, tonumber(from == '-inf' and 0 or from)
  for i, id in ipairs(call('LRANGE', keys.critical(user), at_from, at_from + limit_n - 1)) do
    rows[#rows + 1] = id
    rows[#rows + 1] = tostring(at_from + i)
  end
else
  local set = source == 'dlq' and keys.dlq(user) or source == 'normal' and keys.normal(user) or keys.state(source)
  rows = call('ZRANGEBYSCORE', set, from, '+inf', 'WITHSCORES', 'LIMIT', skip_n, limit_n)
end
local filter = user ~= '' and source ~= 'dlq' and source ~= 'critical' and source ~= 'normal'
local reply = {'', 0}
local next_from, next_skip, bytes = from, skip_n, 0
local seen = 0
for i = 1, #rows, 2 do
  if bytes > BYTES then break end
  seen = seen + 1
  if source == 'critical' then
    next_from, next_skip = rows[i + 1], 0
  elseif tonumber(rows[i + 1]) == tonumber(next_from) then
    next_skip = next_skip + 1
  else
    next_from, next_skip = rows[i + 1], 1
  end
  local rec = record.load_whole(rows[i])
  if rec and (not filter or rec.user == user) then
    reply[#reply + 1] = rows[i]
    reply[#reply + 1] = record.whole(rec)
    bytes = bytes + #rec.data
  end
end
if seen == limit_n or bytes > BYTES then
  reply[1], reply[2] = next_from, next_skip
end
return reply
