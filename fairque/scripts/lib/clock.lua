-- INCLUDE prelude keys now
-- EXPORTS clock
-- One read and one write a call of all that is global: time, virtual time and the sums under it.
-- `last` makes time strictly increasing, so that first in, first out is exact and a clock that steps back gives nothing.
--
-- virtual, mark: virtual time and the furthest front ever; neither goes back.
-- weight, running: what the counted tenants (ready, or running with a tag beyond virtual time) contribute.
-- all_running: every running task. generation: moves when nothing is left, and all tags read as 0 again.
-- credit, lane: the sparse lane's. at: when virtual time was last moved. slots: of live workers.
-- swept, grace: the reaper's. timer: the due time that some idle worker has promised to wake for. paused: 0 or 1.
local CLOCK = '>dddddddddddddddd'
local HEARTBEATS = 2
local clock = {}
do
  local data = call('GET', keys.clock)
  if data and #data == 128 then
    clock.last, clock.virtual, clock.mark, clock.weight, clock.running, clock.all_running, clock.generation,
      clock.credit, clock.lane, clock.at, clock.slots, clock.tokens, clock.swept, clock.grace, clock.timer,
      clock.paused = struct.unpack(CLOCK, data)
  else
    clock.last, clock.virtual, clock.mark, clock.weight, clock.running, clock.all_running = 0, 0, 0, 0, 0, 0
    clock.generation, clock.credit, clock.lane, clock.at, clock.slots, clock.tokens = 1, 0, 0, 0, 0, 0
    clock.swept, clock.grace, clock.timer, clock.paused = 0, 0, 0, 0
  end
  clock.now = math.max(server_now(), clock.last + 1)
end

-- The next microsecond: for each push of a batch one of its own.
function clock.tick()
  clock.now = clock.now + 1
  return clock.now
end

function clock.save()
  call('SET', keys.clock, struct.pack(CLOCK, clock.now, clock.virtual, clock.mark, clock.weight, clock.running,
    clock.all_running, clock.generation, clock.credit, clock.lane, clock.at, clock.slots, clock.tokens, clock.swept,
    clock.grace, clock.timer, clock.paused))
end

-- Virtual time never trails the front; neither ever goes back.
function clock.settle(front)
  if front > clock.mark then clock.mark = front end
  if clock.mark > clock.virtual then clock.virtual = clock.mark end
end

-- The smallest ready tag and whose it is; with nobody ready, virtual time.
function clock.front()
  local first = call('ZRANGE', keys.ready_all, 0, 0, 'WITHSCORES')
  if first[1] then return tonumber(first[2]), first[1] end
  return clock.virtual, nil
end
