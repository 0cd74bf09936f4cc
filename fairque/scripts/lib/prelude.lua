-- EXPORTS call refuse conf
-- What every script shares: its settings and its way to refuse.
-- A script that refuses has written nothing, since Lua does not roll back: validate, compute, then write.
local call = redis.call

local function refuse(code, detail)
  error({err = 'FQ_' .. code .. ' ' .. (detail or '')})
end

-- conf: by_time (worker_time instead of round_robin), aging and lease in µs, TTLs in ms, unknown in µs.
local conf = {}
do
  local mode
  mode, conf.aging, conf.lease, conf.result_ttl, conf.user_ttl, conf.sparse_share, conf.unknown, conf.error_ttl,
    conf.capacity, conf.spare = struct.unpack('>Bddddddddd', settings)
  conf.by_time = mode == 1
end
