-- INCLUDE prelude keys now
-- EXPORTS clock
-- BEGIN clock.read(settings)
-- One read and one write a call of all that is global: time, the root level's virtual time and the sums under it.
-- `last` makes time strictly increasing, so that first in, first out is exact and a clock that steps back gives nothing.
--
-- virtual, mark, weight, running, generation, at, and the window's: of the root level (lib/levels.lua).
-- all_running: every running task. credit, lane: the sparse lane's. moved: when service was last counted; served_to: µs
-- of service counted since ever. slots: of live workers. swept, grace: the reaper's. timer: the due time that some idle
-- worker has promised to wake for. paused: 0 or 1. assigned: which assignment of users is in force (0: everybody serves
-- all). rules: which rules of policies. renewing: how far tenants have been placed anew under these (0: all are).
-- walked: how many of them have been compared with what is stored elsewhere, in this round (lib/reconcile.lua).
-- continuing: how many pieces of work are recorded for later calls (lib/later.lua).
-- waiting: idle workers. pushed, claimed, finished, failed: tasks since ever.
local CLOCK = '>dddddddddddddddddddddddddddddddddd'
local SIZE = 272
local HEARTBEATS = 2
local clock = {}

-- The key is gone, though there are workers or tenants. What it alone knew is chosen so that nothing of before is taken
-- for valid: tokens and generations that never were. All tenants are placed anew; the next sweep counts what runs.
local function recover()
  clock.tokens, clock.generation = clock.now, clock.now
  clock.rules, clock.renewing = math.floor(clock.now / 1000000), 1
  clock.paused = tonumber(call('HGET', keys.meta, 'paused') or 0)
  clock.assigned = tonumber(call('HGET', keys.assign, 'force') or 0)
  clock.waiting = call('ZCARD', keys.waiters)
  clock.continuing = call('LLEN', keys.continued)
end

function clock.read(settings)
  local data = call('GET', keys.clock)
  if data and #data == SIZE then
    clock.last, clock.virtual, clock.mark, clock.weight, clock.running, clock.all_running, clock.generation,
      clock.credit, clock.lane, clock.at, clock.slots, clock.tokens, clock.swept, clock.grace, clock.timer,
      clock.paused, clock.moved, clock.served_to, clock.assigned, clock.rules, clock.renewing, clock.window, clock.past,
      clock.virtual_now, clock.virtual_before, clock.served_now, clock.served_before, clock.walked, clock.waiting,
      clock.pushed, clock.claimed, clock.finished, clock.failed, clock.continuing = struct.unpack(CLOCK, data)
  else
    clock.last, clock.virtual, clock.mark, clock.weight, clock.running, clock.all_running = 0, 0, 0, 0, 0, 0
    clock.generation, clock.credit, clock.lane, clock.at, clock.slots, clock.tokens = 1, 0, 0, 0, 0, 0
    clock.swept, clock.grace, clock.timer, clock.paused, clock.moved, clock.served_to = 0, 0, 0, 0, 0, 0
    clock.assigned, clock.rules, clock.renewing = 0, 0, 0
    clock.window, clock.past, clock.virtual_now, clock.virtual_before = 0, 0, 0, 0
    clock.served_now, clock.served_before, clock.walked, clock.waiting = 0, 0, 0, 0
    clock.pushed, clock.claimed, clock.finished, clock.failed, clock.continuing = 0, 0, 0, 0, 0
  end
  clock.now = math.max(server_now(settings), clock.last + 1)
  if clock.last == 0 and call('EXISTS', keys.workers, keys.users) > 0 then recover() end
  clock.next_credit = nil
  clock.ready, clock.ahead, clock.ready_known, clock.ahead_known = keys.ready_all, keys.ahead, false, false
  clock.unwritten = nil
end

-- The next microsecond: for each push of a batch one of its own.
function clock.tick()
  clock.now = clock.now + 1
  return clock.now
end

-- Time in which service was given: two heartbeats at most between two calls.
function clock.serve()
  clock.served_to = clock.served_to + math.min(math.max(0, clock.now - clock.moved), HEARTBEATS * conf.lease / 3)
  clock.moved = clock.now
end

function clock.save()
  call('SET', keys.clock, struct.pack(CLOCK, clock.now, clock.virtual, clock.mark, clock.weight, clock.running,
    clock.all_running, clock.generation, clock.credit, clock.lane, clock.at, clock.slots, clock.tokens, clock.swept,
    clock.grace, clock.timer, clock.paused, clock.moved, clock.served_to, clock.assigned, clock.rules, clock.renewing,
    clock.window, clock.past, clock.virtual_now, clock.virtual_before, clock.served_now, clock.served_before,
    clock.walked, clock.waiting, clock.pushed, clock.claimed, clock.finished, clock.failed,
    clock.continuing))
end
