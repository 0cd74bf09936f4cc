-- renew: a lease, and what its holder can run; also by the supervisor for a busy child
-- KEYS  clock
-- ARGV  prefix settings incarnation functions tokens...
-- FLAGS allow-oom
-- INCLUDE prelude keys record clock scheduler leases settle sweep reconcile wake continue finish_call
-- `functions`: packed list or ''. Tokens: id, token for each claim that the caller asks about.
-- REPLY for each claim: 1 held, 0 lost, 2 held and a cancel was asked for; then news of the dead (lib/sweep.lua)
-- ERRORS FQ_DEAD
leases.require(incarnation)
scheduler.advance()
call('ZADD', keys.workers, clock.now + conf.lease, incarnation)
if functions ~= '' then call('HSET', keys.worker(incarnation), 'functions', functions) end
local names = functions ~= '' and functions or call('HGET', keys.worker(incarnation), 'functions')
for _, name in ipairs(names and cmsgpack.unpack(names) or {}) do
  call('ZADD', keys.functions, clock.now, name)
end
if clock.continuing > 0 then continue.go_on() end
local reply = {}
for i = TOKENS, #ARGV, 2 do
  local rec = record.load(ARGV[i])
  if rec and rec.state == STARTED and rec.token == ARGV[i + 1] and rec.holder == incarnation then
    reply[#reply + 1] = record.has(rec, CANCEL) and 2 or 1
  else
    reply[#reply + 1] = 0
  end
end
if clock.now - clock.swept > conf.lease / 12 then
  reconcile.sweep()
  for _, value in ipairs(sweep.reap()) do reply[#reply + 1] = value end
  sweep.expire()
  continue.sweep()
  wake.one_if_ready()
end
finish_call()
return reply
