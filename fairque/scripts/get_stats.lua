-- get_stats: the totals, in O(1) and the number of workers
-- KEYS  clock
-- ARGV  prefix settings
-- FLAGS no-writes
-- INCLUDE prelude keys states clock
-- REPLY counters (name, value...), states (name, count...), numbers (name, text...), workers (incarnation, deadline, fields...)
local states = {}
for _, name in ipairs(STATE_NAMES) do
  states[#states + 1] = name
  states[#states + 1] = call('ZCARD', keys.state(name))
end
local function text(x) return string.format('%.17g', x) end
local numbers = {'ready_users', text(call('ZCARD', keys.ready_all)), 'idle_workers', text(call('ZCARD', keys.waiters)),
  'slots', text(clock.slots), 'running', text(clock.all_running), 'virtual_time', text(clock.virtual),
  'mark', text(clock.mark), 'generation', text(clock.generation), 'paused', text(clock.paused), 'now', text(clock.now),
  'workers', text(call('ZCARD', keys.workers)), 'dead_workers', text(call('ZCARD', keys.dead))}
local workers = {}
local incarnations = call('ZRANGE', keys.workers, 0, 999, 'WITHSCORES')
for i = 1, #incarnations, 2 do
  workers[#workers + 1] = incarnations[i]
  workers[#workers + 1] = incarnations[i + 1]
  workers[#workers + 1] = call('HGET', keys.worker(incarnations[i]), 'fields') or ''
  workers[#workers + 1] = call('HLEN', keys.held(incarnations[i]))
end
local counters = call('HGETALL', keys.stats)
for _, name in ipairs({'pushed', 'claimed', 'finished', 'failed'}) do
  if clock[name] > 0 then
    counters[#counters + 1] = name
    counters[#counters + 1] = string.format('%.0f', clock[name])
  end
end
return {counters, states, numbers, workers}
