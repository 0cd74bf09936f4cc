-- INCLUDE prelude keys clock
-- EXPORTS shown
-- What is shown of tenants; queue/operations/users.py and explain.py read it. Somebody may have put something else in the
-- place of a queue: that is shown too, and stops nothing.
local BASE_SIZE, RATED, RATED_SIZE, ENQUEUED = 141, 16, 28, 32
local shown = {}

function shown.number(x)
  return string.format('%.17g', x)
end

-- now, then of the root level: virtual time since ever, the window, virtual time and service of its buckets.
function shown.clock()
  local values = {clock.now, clock.past + clock.virtual, clock.window, clock.virtual_now, clock.virtual_before,
    clock.served_now, clock.served_before}
  for i, value in ipairs(values) do values[i] = shown.number(value) end
  return values
end

-- The record of a tenant, '' if there is none.
function shown.record(user)
  local data = redis.pcall('GET', keys.user(user))
  return type(data) == 'string' and #data >= BASE_SIZE and data or ''
end

-- The organisation in a packed record (lib/tenants.lua), '' if it is in none.
function shown.group_of(data)
  if data == '' then return '' end
  local at = BASE_SIZE + 1 + (bit.band(string.byte(data), RATED) ~= 0 and RATED_SIZE or 0)
  return string.sub(data, at, at + string.byte(data, BASE_SIZE) - 1)
end

local function enqueued_at(id)
  local data = type(id) == 'string' and redis.pcall('GETRANGE', keys.task(id), ENQUEUED, ENQUEUED + 7)
  return type(data) == 'string' and #data == 8 and struct.unpack('>d', data) or math.huge
end

-- Of the user's own keys: the lengths of its three kinds of queues, since when the oldest of their heads is queued (µs,
-- infinity: none), the names of its limiters, and what is no queue.
function shown.queues(user)
  local found = {oldest = math.huge, limited = 0, limiters = {}, broken = ''}
  local function look(what, command, key, ...)
    local reply = redis.pcall(command, key, ...)
    if type(reply) ~= 'table' or not reply.err then return reply end
    found.broken = what
    return command == 'SMEMBERS' and {} or 0
  end
  local function head_of(key)
    found.oldest = math.min(found.oldest, enqueued_at(redis.pcall('ZRANGE', key, 0, 0)[1]))
  end
  found.critical = look('critical queue', 'LLEN', keys.critical(user))
  found.normal = look('normal queue', 'ZCARD', keys.normal(user))
  found.limiters = look('list of limiters', 'SMEMBERS', keys.limiters_of(user))
  found.oldest = enqueued_at(redis.pcall('LINDEX', keys.critical(user), 0))
  head_of(keys.normal(user))
  for _, name in ipairs(found.limiters) do
    found.limited = found.limited + look('queue under ' .. name, 'ZCARD', keys.limited(user, name))
    head_of(keys.limited(user, name))
  end
  found.dead = look('list of dead letters', 'ZCARD', keys.dlq(user))
  return found
end

-- Appends the user, its record, its organisation's, the lengths of its three kinds of queues, since when the oldest of
-- their heads is queued (µs, 0: none), its dead letters, and which of its keys is no queue.
function shown.user(rows, user)
  local data, queues = shown.record(user), shown.queues(user)
  local group = shown.group_of(data)
  local values = {user, data, group ~= '' and shown.record(group) or '', queues.critical, queues.normal, queues.limited,
    queues.oldest < math.huge and shown.number(queues.oldest) or '0', queues.dead, queues.broken}
  for _, value in ipairs(values) do rows[#rows + 1] = value end
end
