-- sweep: what time alone brings, and what was left behind: a bounded piece of a round
-- KEYS  clock
-- ARGV  prefix settings owner every again step cursor
-- FLAGS allow-oom
-- INCLUDE prelude keys clock scheduler cleanup wake finish_call
-- `owner`: whose turn it is to go on with the queue's own round, under a lease; where that is is kept here, so that another
-- one goes on after a crash. '': a round of the caller's, from `step` ('' at its beginning) and `cursor`. `every`: µs from
-- one of the queue's own rounds to the next; `again`: from one of them that looks for orphans to the next.
-- REPLY step and cursor to go on from (step '': the round is over, or it is somebody else's), µs to wait, then
-- names and counts of what was done
-- ERRORS FQ_STEP there is no such step
local round = {owner, 0, 0, step, cursor, 0, '1'}
if owner ~= '' then
  round = call('HMGET', keys.cleanup, 'owner', 'until', 'next', 'step', 'cursor', 'audited', 'all')
  for i = 2, 6 do
    if i ~= 4 and i ~= 5 then round[i] = tonumber(round[i] or 0) end
  end
  if round[1] ~= owner and round[2] > clock.now then return {'', '', round[2] - clock.now} end
  round[4], round[5] = round[4] or '', round[5] or '0'
  if round[4] == '' then
    if round[3] > clock.now then return {'', '', math.min(round[3] - clock.now, tonumber(every))} end
    round[7] = clock.now - round[6] >= tonumber(again) and '1' or '0'
  end
end
local at, from, all = round[4], round[5], round[7] == '1'
if at == '' then at, from = cleanup.first(), '0' end
scheduler.advance()
local done = {}
local following = cleanup.step(at, from, done)
local next_step, next_cursor = at, following
if following == '' then next_step, next_cursor = cleanup.after(at, all), '0' end
if owner ~= '' then
  local over = next_step == ''
  local audited = over and all and clock.now or round[6]
  local function text(x) return string.format('%.17g', x) end
  call('HSET', keys.cleanup, 'owner', owner, 'until', over and '0' or text(clock.now + conf.lease), 'next',
    over and text(clock.now + tonumber(every)) or '0', 'step', next_step, 'cursor', next_cursor, 'audited', text(audited),
    'all', round[7])
end
wake.one_if_ready()
finish_call()
local reply = {next_step, next_cursor, next_step == '' and tonumber(every) or 0}
for name, count in pairs(done) do
  reply[#reply + 1] = name
  reply[#reply + 1] = count
end
return reply
