-- schedule_look: what the leader plans from: schedules whose time to look has come; deferred -> queued for runs behind one that is over
-- KEYS  clock
-- ARGV  prefix settings who token limit names...
-- FLAGS allow-oom
-- INCLUDE prelude keys clock schedules leader wake finish_call
-- With `names`, those, due or not.
-- REPLY now, the next time to look among those that are not due (µs, or inf), names whose definition is lost, then for
-- each: name, version, last run if that is not over, or '', cursor (µs), definition; times as text
-- ERRORS FQ_LEADER the caller does not lead
local BYTES = 4194304
leader.require(who, token)
local names = {}
if #ARGV >= NAMES then
  for i = NAMES, #ARGV do names[#names + 1] = ARGV[i] end
else
  names = call('ZRANGEBYSCORE', keys.schedules_due, '-inf', clock.now, 'LIMIT', 0, limit)
end
local following = call('ZRANGEBYSCORE', keys.schedules_due, string.format('(%.17g', clock.now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local lost = {}
local reply = {string.format('%.17g', clock.now), following[2] or 'inf', lost}
local bytes, released = 0, false
for _, name in ipairs(names) do
  if bytes > BYTES then break end
  local waited = call('EXISTS', keys.waiting(name)) == 1
  released = schedules.release(name) or released
  local entry = schedules.get(name)
  if entry then
    for _, part in ipairs({name, schedules.version(entry), schedules.is_busy(name, entry) and entry.last or '',
      string.format('%.17g', entry.cursor), entry.definition}) do
      reply[#reply + 1] = part
    end
    bytes = bytes + #entry.definition
  elseif call('EXISTS', keys.waiting(name)) == 1 then
    schedules.look_at(name, NEVER)
  elseif call('ZREM', keys.schedules_due, name) == 1 and not waited then
    lost[#lost + 1] = name
  end
end
if released then
  wake.one_if_ready()
  finish_call()
end
return reply
