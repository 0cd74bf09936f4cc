-- leave: an incarnation is out; what it still holds goes back at once
-- KEYS  clock
-- ARGV  prefix settings incarnation begun tokens...
-- FLAGS allow-oom
-- INCLUDE prelude keys record clock scheduler stats leases settle sweep wake finish_call
-- `begun`: 0 nothing had begun (a clean exit: no attempt is used); 1 all had; 2 those whose tokens follow.
-- REPLY how many tasks were given back, 1 if none is left, and the news of them (lib/sweep.lua)
local known = call('EXISTS', keys.worker(incarnation))
if known == 0 then return {0, 1, {}} end
scheduler.advance()
call('HSET', keys.worker(incarnation), 'renewed', string.format('%.17g', clock.now))
if call('ZSCORE', keys.workers, incarnation) then sweep.bury(incarnation) end
if begun ~= '0' then stats.add('workers_dead') end
local had_begun = {}
for i = TOKENS, #ARGV do had_begun[ARGV[i]] = true end
if begun == '1' then had_begun = nil end
local news = {}
local done, all = sweep.give_back(incarnation, 500, had_begun, clock.now, news)
wake.one_if_ready()
finish_call()
return {done, all and 1 or 0, news}
