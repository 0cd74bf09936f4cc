-- INCLUDE prelude keys states record clock tenants stats repairs writes sweep mend reconcile letters erase budget continue
-- EXPORTS cleanup
-- A round of clean-up: what is past its TTL, then what was left behind without its other half. It is a list of steps with
-- cursors; a call does a piece of one. (Every call of a worker does a little of the former too: lib/sweep.lua.)
local CHUNK, LETTERS, KEYS, CALLS = 500, 100, 100, 10
local UNTIL_NOW = {'due', 'finished', 'canceled', 'letters', 'caps'}
local ORPHANS = {'queued', 'scheduled', 'deferred', 'failed', 'finished whole', 'canceled whole', 'dlq', 'scan'}
local cleanup = {}
local work = {}

-- The step after this one, '' if it is the last. `all`: orphans are looked for too.
function cleanup.after(step, all)
  for _, list in ipairs({UNTIL_NOW, ORPHANS}) do
    for i, name in ipairs(list) do
      if name == step then
        if list[i + 1] then return list[i + 1] end
        return list == UNTIL_NOW and all and ORPHANS[1] or ''
      end
    end
  end
  return ''
end

function cleanup.first()
  return UNTIL_NOW[1]
end

-- A piece of a step, from its cursor ('0' at its beginning). Returns the cursor to go on from, '' at its end. `done` counts.
function cleanup.step(step, cursor, done)
  local name, mode = string.match(step, '^(%a+) ?(%a*)$')
  local run = work[name]
  if not run then refuse('STEP', step) end
  return run(cursor, done, mode == 'whole', name)
end

local function add(done, name, by)
  done[name] = (done[name] or 0) + by
end

function work.due(_, done)
  local promoted, expired = sweep.promote(), sweep.expire()
  continue.go_on()
  continue.sweep()
  add(done, 'promoted', promoted)
  add(done, 'expired', expired)
  call('ZREMRANGEBYSCORE', keys.functions, '-inf', clock.now - conf.unknown * 10)
  return promoted + expired > 0 and '0' or ''
end

-- Entries of tasks whose records have expired; of all, or of those that are there for longer than the queue's TTL. What
-- stays, since its own TTL is longer, is passed over.
local function forget(cursor, done, whole, state)
  local registry, at = keys.state(state), tonumber(cursor)
  local before = clock.now - conf.result_ttl * 1000
  local rows = call('ZRANGE', registry, at, at + CHUNK - 1, 'WITHSCORES')
  local gone, looked, past_end = {}, 0, #rows < 2 * CHUNK
  for i = 1, #rows, 2 do
    if not whole and tonumber(rows[i + 1]) > before then
      past_end = true
      break
    end
    if looked % 50 == 49 and budget.spent(200) then
      past_end = false
      break
    end
    looked = looked + 1
    if call('EXISTS', keys.task(rows[i])) == 0 then gone[#gone + 1] = rows[i] end
  end
  if #gone > 0 then call('ZREM', registry, unpack(gone)) end
  add(done, whole and 'orphans' or 'forgotten', #gone)
  return past_end and '' or string.format('%.0f', at + looked - #gone)
end
work.finished, work.canceled = forget, forget

-- Dead letters past their TTL.
function work.letters(_, done)
  if conf.dead_ttl == 0 then return '' end
  local old = call('ZRANGEBYSCORE', keys.state('failed'), '-inf', clock.now - conf.dead_ttl * 1000, 'LIMIT', 0, LETTERS)
  for i, id in ipairs(old) do
    local rec = record.load(id)
    if rec and rec.state == FAILED then
      letters.remove(id, rec)
      stats.add('dead_letters_expired')
      add(done, 'dead_letters_expired', 1)
    else
      call('ZREM', keys.state('failed'), id)
    end
    if i % 10 == 0 and budget.spent(400) then break end
  end
  return old[1] and '0' or ''
end

-- Dead letters beyond what a user may have.
function work.caps(_, done)
  if conf.max_dead == 0 then return '' end
  local user = call('ZREVRANGEBYSCORE', keys.by_dead, '+inf', '(' .. conf.max_dead, 'LIMIT', 0, 1)[1]
  if not user then return '' end
  local excess = letters.recount(user) - conf.max_dead
  if excess > 0 then
    local gone = letters.drop_oldest(user, math.min(excess, LETTERS), 'dead_letters_dropped')
    add(done, 'dead_letters_dropped', gone)
    if gone == 0 then return '' end -- in another round: others are still to hear of those
  end
  return '0'
end

-- Registries whose tasks are gone, or in another state.
local function check_registry(cursor, done, _, state)
  local before = #repairs.list
  local following = reconcile.registry(state, tonumber(cursor))
  add(done, 'orphans', (#repairs.list - before) / 4)
  return following >= 0 and string.format('%.0f', following) or ''
end
work.queued, work.scheduled, work.deferred, work.failed = check_registry, check_registry, check_registry, check_registry

-- Users' dead letters whose tasks are gone, or no dead letters. The cursor: which user, and which of its letters.
function work.dlq(cursor, done)
  local rank, offset = string.match(cursor, '^(%d+)/(%d+)$')
  rank, offset = tonumber(rank or 0), tonumber(offset or 0)
  local user = call('ZRANGE', keys.by_dead, rank, rank)[1]
  if not user then return '' end
  local ids, gone = redis.pcall('ZRANGE', keys.dlq(user), offset, offset + CHUNK - 1), 0
  if tenants.is_broken(ids) then ids, gone = {}, 1 end
  for _, id in ipairs(ids) do
    local rec = record.load(id)
    if not (rec and rec.state == FAILED and rec.user == user) then gone = gone + call('ZREM', keys.dlq(user), id) end
  end
  local left = gone > 0 and letters.recount(user) or 1
  add(done, 'orphans', gone)
  if #ids == CHUNK then return string.format('%d/%d', rank, offset + CHUNK - gone) end
  -- Who has none any more is not in the list either.
  return string.format('%d/0', left > 0 and rank + 1 or rank)
end

-- All keys that are stored.

local kinds = {}

-- A record that is in no registry, or in no queue.
function kinds.task(_, id)
  reconcile.task(id)
end

local function of_task(key, id)
  if call('EXISTS', keys.task(id)) == 0 and call('PTTL', key) == -1 then
    call('UNLINK', key)
    repairs.mended('task ' .. id, 'record', 'none', 'what was left of it is gone')
  end
end
kinds.errors, kinds.result, kinds.progress, kinds.watchers = of_task, of_task, of_task, of_task

function kinds.dedup(key)
  local holder = redis.pcall('GET', key)
  if type(holder) == 'string' and call('PTTL', key) == -1 and call('EXISTS', keys.task(holder)) == 0 then
    call('UNLINK', key)
    repairs.mended('task ' .. holder, 'dedup key', 'held', 'free')
  end
end

function kinds.dlq(_, user)
  local before, count = repairs.score(keys.by_dead, user), letters.recount(user)
  if (before or 0) ~= count then repairs.mended('user ' .. user, 'dead letters', tostring(before), count) end
end

-- Queues of a user without a record.
function kinds.queue(_, rest)
  local user = string.match(rest, '^user:([^:]+):')
  if user and call('EXISTS', keys.user(user)) == 0 then mend.user(user) end
end

function kinds.user(key, rest)
  local user, what = string.match(rest, '^([^:]+):(%a+)$')
  if not user or call('EXISTS', keys.user(user)) == 1 then return end
  if what == 'costs' and call('PTTL', key) == -1 then
    call('PEXPIRE', key, conf.user_ttl)
  elseif what == 'limiters' and redis.call('TYPE', key).ok == 'set' then
    for _, limiter in ipairs(call('SMEMBERS', key)) do
      if call('EXISTS', keys.limited(user, limiter)) == 1 then return mend.user(user) end
    end
    call('UNLINK', key)
    repairs.mended('user ' .. user, 'limiters', 'of none', 'gone')
  end
end

-- A worker that nobody knows to be alive or dead: the reaper shall give back what it holds.
local function is_known(incarnation)
  return call('ZSCORE', keys.workers, incarnation) or call('ZSCORE', keys.dead, incarnation)
end

function kinds.worker(_, rest)
  local incarnation = string.match(rest, '^([^:]+)')
  if not is_known(incarnation) then
    call('ZADD', keys.dead, clock.now, incarnation)
    repairs.mended('worker ' .. incarnation, 'life', 'unknown', 'dead')
  end
end

function kinds.wake(key, incarnation)
  if incarnation ~= 'scheduler' and not is_known(incarnation) and call('PTTL', key) == -1 then
    call('UNLINK', key)
    repairs.mended('worker ' .. incarnation, 'wake list', 'of nobody', 'gone')
  end
end

function work.scan(cursor, done)
  local start = string.sub(keys.task(''), 1, -6)
  local before = #repairs.list
  for _ = 1, CALLS do
    local page = call('SCAN', cursor, 'MATCH', start .. '*', 'COUNT', KEYS)
    cursor = page[1]
    for _, key in ipairs(page[2]) do
      local kind, rest = string.match(string.sub(key, #start + 1), '^(%a+):(.+)$')
      if kind and kinds[kind] then kinds[kind](key, rest) end
    end
    writes.flush()
    if cursor == '0' or budget.spent(2000) then break end
  end
  add(done, 'orphans', (#repairs.list - before) / 4)
  return cursor == '0' and '' or cursor
end
