-- explain: all that decides when a task starts, as it is stored
-- KEYS  clock
-- ARGV  prefix settings id
-- FLAGS no-writes
-- INCLUDE prelude keys states record clock assigned wake shown
-- Its cost is bounded: of rivals, workers and entries the first are read, and a list of CRITICAL tasks is searched no
-- further than its first 10,000.
-- REPLY empty if there is no such task; else
--   the record's head; numbers of the clock (ClockFacts in queue/operations/waiting.py); records of the user and of its
--   organisation; of its user's tasks before it: CRITICAL (-1: unknown), normal, under limiters, under its own limiter;
--   what is broken; root level: how many are ready, its own rank (-1: none), then tenant, tag, record of the first; the
--   same of the level of its organisation; the limiter's record, its policy, how many users wait for it alone, then users
--   and how much of it they use; workers: how many, then entry, slots, running, 1 if it has the function, for the first;
--   when the function was announced last; the words of the user (lib/assigned.lua); entries (name, what they serve);
--   tasks that ended in the last 1, 4, 16, 64 and 256 seconds; how many are queued; and the head of its last failed attempt
--   (core/attempts.py), or ''.
local URGENT = 6 -- Priority.CRITICAL
local RIVALS, WORKERS, ENTRIES, SEARCHED, LIMITERS, HELD = 100, 200, 500, 10000, 32, 1000
local ATTEMPT_SIZE = 48
local text = shown.number
local rec = record.load(id)
if not rec then return {} end
local limiter = record.limiter(rec)
local user_data = shown.record(rec.user)
local group = shown.group_of(user_data)
local queues = shown.queues(rec.user)

local function count(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  return type(reply) == 'number' and reply or 0
end

-- How many of the user's tasks start before it.
local function before()
  if rec.state ~= QUEUED then return {0, 0, 0, 0} end
  if rec.priority == URGENT and not limiter then
    local index = redis.pcall('LPOS', keys.critical(rec.user), id, 'MAXLEN', SEARCHED)
    return {type(index) == 'number' and index or -1, 0, 0, 0}
  end
  local own = limiter and keys.limited(rec.user, limiter) or keys.normal(rec.user)
  local score = redis.pcall('ZSCORE', own, id)
  if type(score) ~= 'string' then return {queues.critical, 0, 0, 0} end
  local under_limiters, under_own = 0, limiter and count('ZRANK', own, id) or 0
  for i, name in ipairs(queues.limiters) do
    if i > LIMITERS then break end
    local key = keys.limited(rec.user, name)
    if name ~= limiter then under_limiters = under_limiters + count('ZCOUNT', key, '-inf', '(' .. score) end
  end
  local normal = limiter and count('ZCOUNT', keys.normal(rec.user), '-inf', '(' .. score) or count('ZRANK', own, id)
  return {queues.critical, normal, under_limiters, under_own}
end

local function level(ready, tenant)
  local found = {call('ZCARD', ready), call('ZRANK', ready, tenant) or -1}
  local rivals = call('ZRANGE', ready, 0, RIVALS - 1, 'WITHSCORES')
  for i = 1, #rivals, 2 do
    found[#found + 1] = rivals[i]
    found[#found + 1] = rivals[i + 1]
    found[#found + 1] = shown.record(rivals[i])
  end
  return found
end

local function workers()
  local found = {call('ZCARD', keys.workers)}
  for _, incarnation in ipairs(call('ZRANGE', keys.workers, 0, WORKERS - 1)) do
    local told = call('HMGET', keys.worker(incarnation), 'entry', 'slots', 'functions')
    found[#found + 1] = told[1] or ''
    found[#found + 1] = told[2] or '0'
    found[#found + 1] = call('HLEN', keys.held(incarnation))
    found[#found + 1] = wake.has(told[3], rec.func) and 1 or 0
  end
  return found
end

-- Who uses the limiter.
local function limiter_use()
  if not limiter then return {'', '', 0} end
  local users, seen = {}, 0
  for _, incarnation in ipairs(call('ZRANGE', keys.workers, 0, WORKERS - 1)) do
    if seen < HELD then
      for _, entry in ipairs(call('HVALS', keys.held(incarnation))) do
        local user, under = string.match(entry, '^([^\n]+)\n?(.*)$', 19)
        seen = seen + 1
        if under == limiter then users[user] = (users[user] or 0) + 1 end
      end
    end
  end
  local data = redis.pcall('GET', keys.limiter(limiter))
  local found = {type(data) == 'string' and data or '', call('HGET', keys.limiters, limiter) or '',
    call('ZCARD', keys.blocked(limiter))}
  for user, uses in pairs(users) do
    found[#found + 1] = user
    found[#found + 1] = uses
  end
  return found
end

local function entries()
  if clock.assigned == 0 or call('HLEN', keys.entries) > ENTRIES then return {} end
  return call('HGETALL', keys.entries)
end

local function ended()
  local found = {}
  for _, seconds in ipairs({1, 4, 16, 64, 256}) do
    local since = text(clock.now - seconds * 1000000)
    found[#found + 1] = call('ZCOUNT', keys.state('finished'), since, '+inf')
      + call('ZCOUNT', keys.state('failed'), since, '+inf')
  end
  return found
end

-- Somebody may have put something else in the place of its errors.
local function last_attempt()
  if rec.state ~= SCHEDULED or rec.attempt == 0 then return '' end
  local last = redis.pcall('LINDEX', keys.errors(id), -1)
  return type(last) == 'string' and string.sub(last, 1, ATTEMPT_SIZE) or ''
end

local numbers = {}
for i, value in ipairs({clock.now, clock.virtual, clock.mark, clock.weight, clock.all_running, clock.generation,
  clock.slots, clock.paused, clock.assigned, clock.window, clock.served_now, clock.served_before}) do
  numbers[i] = text(value)
end
local words = clock.assigned > 0 and (call('HGET', keys.assignment(clock.assigned), rec.user) or 'u') or ''
local head = call('GETRANGE', keys.task(id), 0, HEAD_AND_NAMES - 1)
local group_data = group ~= '' and shown.record(group) or ''
local root = level(keys.ready_all, group ~= '' and group or rec.user)
local inner = group ~= '' and level(keys.ready_in(group), rec.user) or {0, -1}
return {head, numbers, user_data, group_data, before(), queues.broken, root, inner, limiter_use(), workers(),
  call('ZSCORE', keys.functions, rec.func) or '0', words, entries(), ended(), call('ZCARD', keys.state('queued')),
  last_attempt()}
