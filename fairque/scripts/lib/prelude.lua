-- EXPORTS call refuse conf prepare
-- BEGIN prepare(settings)
-- What every script shares: its settings and its way to refuse.
-- A script that refuses has written nothing, since Lua does not roll back: validate, compute, then write.
local call

local function refuse(code, detail)
  error({err = 'FQ_' .. code .. ' ' .. (detail or '')})
end

-- conf: by_time (worker_time instead of round_robin), aging, lease, unknown and steal_after in µs, TTLs in ms; shares;
-- dead letters: their TTL in ms, how many a user may have, and from how many on somebody is told (each 0: no such limit).
local conf = {}
local unpacked

-- A tenth of the server's time went into collecting what calls leave behind, with the pause that Lua comes with.
local GARBAGE_PAUSE = 400

-- Queues with other settings may call in between.
local function prepare(settings)
  call = redis.call -- which is not there yet while the library is loaded
  if settings == unpacked then return end
  local mode
  mode, conf.aging, conf.lease, conf.result_ttl, conf.user_ttl, conf.sparse_share, conf.unknown, conf.user_share,
    conf.steal_after, conf.dead_ttl, conf.max_dead, conf.dead_alert = struct.unpack('>Bddddddddddd', settings)
  conf.by_time = mode == 1
  unpacked = settings
  collectgarbage('setpause', GARBAGE_PAUSE)
end
