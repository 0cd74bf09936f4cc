-- sweep: what time alone brings, in one bounded chunk; also the registries of records that have expired
-- KEYS  clock
-- ARGV  prefix settings state offset
-- FLAGS allow-oom
-- INCLUDE prelude states record clock scheduler sweep wake continue finish_call
-- `state`: finished or canceled; `offset`: how many of its oldest tasks to pass over (those with a longer TTL).
-- REPLY promoted, expired, forgotten, next offset (-1: the end was reached)
local CHUNK = 500
scheduler.advance()
local promoted, expired, forgotten, at = sweep.promote(), sweep.expire(), 0, tonumber(offset)
continue.go_on()
continue.sweep()
local registry = keys.state(state)
local old = call('ZRANGEBYSCORE', registry, '-inf', clock.now - conf.result_ttl * 1000, 'LIMIT', at, CHUNK)
for _, id in ipairs(old) do
  if call('EXISTS', keys.task(id)) == 0 then forgotten = forgotten + call('ZREM', registry, id) end
end
call('ZREMRANGEBYSCORE', keys.functions, '-inf', clock.now - conf.unknown * 10)
wake.one_if_ready()
finish_call()
return {promoted, expired, forgotten, #old == CHUNK and at + CHUNK - forgotten or -1}
