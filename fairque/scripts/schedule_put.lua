-- schedule_put: a schedule is added, or takes the place of the one with its name
-- KEYS  clock
-- ARGV  prefix settings name version digest paused cursor source look definition
-- FLAGS
-- INCLUDE prelude keys clock schedules leader
-- `version`: of what the caller found under the name, or ''. `cursor`, `look`: µs, or inf.
-- REPLY 1 done, 0 there is another version by now
local old = schedules.get(name)
if (old and schedules.version(old) or '') ~= version then return 0 end
local entry = old or {last = '', plan = '', answer = ''}
entry.digest, entry.paused, entry.cursor, entry.source, entry.problem, entry.definition =
  digest, tonumber(paused), tonumber(cursor), source, '', definition
schedules.save(name, entry)
schedules.look_at(name, look)
leader.wake()
return 1
