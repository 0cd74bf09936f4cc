-- sweep: what time alone brings, in one bounded chunk; also the registries of records that have expired
-- KEYS  clock
-- ARGV  prefix settings offset
-- FLAGS allow-oom
-- INCLUDE prelude states record clock tenants sweep wake finish_call
-- `offset`: how many of the oldest finished and canceled tasks to pass over (those with a longer TTL).
-- REPLY promoted, expired, forgotten, next offset (-1: the end was reached)
local CHUNK = 500
tenants.advance()
local promoted, expired, forgotten, at = sweep.promote(), sweep.expire(), 0, tonumber(offset)
local looked = 0
for _, name in ipairs({'finished', 'canceled'}) do
  local registry = keys.state(name)
  local old = call('ZRANGEBYSCORE', registry, '-inf', clock.now - conf.result_ttl * 1000, 'LIMIT', at, CHUNK)
  looked = math.max(looked, #old)
  for _, id in ipairs(old) do
    if call('EXISTS', keys.task(id)) == 0 then
      call('ZREM', registry, id)
      forgotten = forgotten + 1
    end
  end
end
call('ZREMRANGEBYSCORE', keys.functions, '-inf', clock.now - conf.unknown * 10)
wake.one_if_ready()
finish_call()
return {promoted, expired, forgotten, looked == CHUNK and math.max(0, at + CHUNK - forgotten) or -1}
