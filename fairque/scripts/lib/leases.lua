-- INCLUDE prelude keys record clock tenants scheduler writes
-- EXPORTS leases
-- Incarnations and what they hold. A running count changes only together with its entry here.
-- An entry is the token, a mark ('1': a cancel was asked for), whether by the lane, the user, and behind a line break its limiter.
local leases = {}

-- The lease deadline of a live incarnation; a dead or unknown one is refused.
function leases.require(incarnation)
  local deadline = call('ZSCORE', keys.workers, incarnation)
  if not deadline then refuse('DEAD', incarnation) end
  return tonumber(deadline)
end

-- Renews if a sixth of the lease has gone by, so that a busy worker writes it seldom.
function leases.touch(incarnation, deadline)
  if deadline - clock.now < conf.lease * 5 / 6 then
    call('ZADD', keys.workers, clock.now + conf.lease, incarnation)
  end
end

function leases.hold(incarnation, id, rec)
  if rec.flags == 0 then return writes.hold(incarnation, id, rec.token .. '00' .. rec.user) end
  local lane = record.has(rec, LANE) and '1' or '0'
  local limiter = record.limiter(rec)
  local user = limiter and rec.user .. '\n' .. limiter or rec.user
  writes.hold(incarnation, id, rec.token .. '0' .. lane .. user)
end

function leases.mark_cancel(incarnation, id)
  local entry = call('HGET', keys.held(incarnation), id)
  if entry then
    call('HSET', keys.held(incarnation), id, string.sub(entry, 1, 16) .. '1' .. string.sub(entry, 18))
  end
end

function leases.drop(incarnation, id)
  writes.drop(incarnation, id)
end

-- An entry whose record is gone: the registry and the counts are left to mend.
function leases.drop_orphan(incarnation, id)
  local entry = call('HGET', keys.held(incarnation), id)
  if not entry then return end
  call('HDEL', keys.held(incarnation), id)
  call('ZREM', keys.state('started'), id)
  local user, limiter = string.match(entry, '^([^\n]+)\n?(.*)$', 19)
  local t = tenants.get(user)
  scheduler.leave(t, string.sub(entry, 18, 18) == '1', limiter ~= '' and limiter)
  scheduler.place(t)
end
