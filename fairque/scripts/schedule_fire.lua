-- schedule_fire: new -> queued | deferred: the leader's decisions about the ticks of one schedule, if they still hold
-- KEYS  clock
-- ARGV  prefix settings who token name version plan cursor look problem items...
-- FLAGS
-- INCLUDE prelude keys record clock tenants scheduler schedules leader wake finish_call
-- `version`: what was planned from. `plan`: 8 random bytes, by which a repetition is told. `cursor`, `look`: where the
-- decisions move it to, and when to look again (µs, or inf). `problem`: text to keep, or ''.
-- Items, in the order of their ticks: outcome, first tick, last tick (µs), how many, id, record, after. A tick that is left
-- out has an empty id and record. `after`: the id of the run that this one waits for, or ''.
-- The first run that is refused ends it: the cursor stays before its tick, and it is tried again.
-- REPLY 1, for each item that was decided a letter (p pushed, w waits, e was there already, s left out), then code and detail
-- of the refusal as in push, or 1 and ''; or 0: they were made from another version
-- ERRORS FQ_LEADER the caller does not lead
local AGAIN = 5000000
leader.require(who, token)
local entry = schedules.get(name)
if entry and entry.plan == plan then return cmsgpack.unpack(entry.answer) end
if not entry or schedules.version(entry) ~= version then return {0} end

local letters, code, detail = {}, 1, ''
local pushed, last_tick = 0, nil
for i = ITEMS, #ARGV, 7 do
  local id, first, last, count = ARGV[i + 4], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local letter = 's'
  if id ~= '' then
    if pushed == 0 then scheduler.advance() end
    local waits = call('LLEN', keys.waiting(name))
    code, detail = schedules.run(name, id, record.parse(ARGV[i + 5]), ARGV[i + 6])
    if code > 1 then break end
    if code == 0 then
      -- Somebody has pushed a task under this id, or the cursor was lost: the tick has its task.
      letter = 'e'
    else
      pushed = pushed + 1
      letter = call('LLEN', keys.waiting(name)) > waits and 'w' or 'p'
    end
    code, detail = 1, ''
    entry.last = id
  end
  letters[#letters + 1] = letter
  schedules.note(name, letter == 'e' and 'existing' or ARGV[i], first, last, count, id)
  last_tick = last
end

if code == 1 then
  entry.cursor, entry.problem = tonumber(cursor), problem
  schedules.look_at(name, look)
else
  entry.cursor, entry.problem = last_tick or entry.cursor, '#' .. code .. ' ' .. detail
  schedules.look_at(name, clock.now + AGAIN)
end
local answer = {1, table.concat(letters), code, detail}
entry.plan, entry.answer = plan, cmsgpack.pack(answer)
schedules.save(name, entry)
if pushed > 0 then
  clock.pushed = clock.pushed + pushed
  wake.one_if_ready()
end
if pushed > 0 or tenants.changed then finish_call() end
return answer
