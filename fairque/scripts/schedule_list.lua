-- schedule_list: schedules as they are kept: those that are named, else one page of all
-- KEYS  clock
-- ARGV  prefix settings cursor names...
-- FLAGS no-writes
-- INCLUDE prelude keys clock schedules leader
-- `cursor`: 0, then that of the page before.
-- REPLY now, next cursor (0 at the end), the leader's name ('' for none), token and deadline, then for each: name, version,
-- paused, cursor, last run, 1 if that is not over, source, when to look next (inf: never, '': nobody looks), problem,
-- definition; times as text
local found, token, deadline = leader.get()
local following, names = '0', {}
if #ARGV >= NAMES then
  for i = NAMES, #ARGV do names[#names + 1] = ARGV[i] end
else
  local page = call('HSCAN', keys.schedules, cursor, 'COUNT', 100)
  following = page[1]
  for i = 1, #page[2], 2 do names[#names + 1] = page[2][i] end
end
local reply = {string.format('%.17g', clock.now), following, found or '', string.format('%.17g', token or 0),
  string.format('%.17g', deadline or 0)}
for _, name in ipairs(names) do
  local entry = schedules.get(name)
  if entry then
    for _, part in ipairs({name, schedules.version(entry), entry.paused, string.format('%.17g', entry.cursor),
      entry.last, schedules.is_busy(name, entry) and 1 or 0, entry.source, call('ZSCORE', keys.schedules_due, name) or '',
      entry.problem, entry.definition}) do
      reply[#reply + 1] = part
    end
  end
end
return reply
