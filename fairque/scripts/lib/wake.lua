-- INCLUDE prelude keys clock record levels assigned
-- EXPORTS wake
-- Who blocks on a list, and what is put there. Idle workers are woken one at a time: whoever claims and sees that more
-- is ready wakes the next.
local WATCH_LIMIT = 10000
local WATCH_SECONDS = 60
local ASKED = 100
local NO_NAMES = '\144' -- an empty list, as cmsgpack packs it
local wake = {}

function wake.one()
  if clock.waiting == 0 then return end
  local waiter = call('ZPOPMAX', keys.waiters)[1]
  clock.waiting = waiter and clock.waiting - 1 or 0
  if waiter then call('LPUSH', keys.wake(waiter), 'w') end
end

-- The caller will block on its list, or does so no more.
function wake.park(incarnation)
  if call('ZADD', keys.waiters, clock.now, incarnation) == 1 then
    clock.waiting = clock.waiting + 1
  elseif clock.waiting == 0 then
    clock.waiting = call('ZCARD', keys.waiters)
  end
end

function wake.unpark(incarnation)
  clock.waiting = math.max(0, clock.waiting - call('ZREM', keys.waiters, incarnation))
end

-- When something is due that nobody needs to bring: a scheduled task, or a tenant's token. Infinity: nothing is.
function wake.next_due()
  local scheduled = call('ZRANGE', keys.state('scheduled'), 0, 0, 'WITHSCORES')
  local parked = call('ZRANGE', keys.parked, 0, 0, 'WITHSCORES')
  return math.min(tonumber(scheduled[2]) or math.huge, tonumber(parked[2]) or math.huge)
end

local function wake_this(waiter)
  wake.unpark(waiter)
  call('LPUSH', keys.wake(waiter), 'w')
end

-- Wakes one idle worker if there is something that it may claim.
function wake.one_if_ready()
  if clock.paused ~= 0 or clock.waiting == 0 then return end
  local _, user = levels.front(clock)
  if not user then
    -- A limiter may have opened: whoever calls next lets those in who wait for it.
    local parked = call('ZRANGE', keys.parked, 0, 0, 'WITHSCORES')
    if parked[1] and tonumber(parked[2]) <= clock.now then wake.one() end
    return
  end
  if clock.assigned == 0 then return wake.one() end
  local may = {}
  for _, waiter in ipairs(call('ZREVRANGE', keys.waiters, 0, ASKED - 1)) do
    local entry = call('HGET', keys.worker(waiter), 'entry') or ''
    if may[entry] == nil then may[entry] = assigned.may_claim(entry) end
    if may[entry] then return wake_this(waiter) end
  end
end

-- Whether a worker that announced these names (packed) can run a function. One that announced none takes all.
function wake.has(functions, name)
  return functions == NO_NAMES or (functions and string.find(functions, cmsgpack.pack(name), 1, true) ~= nil)
end

-- Wakes an idle worker that has the function.
function wake.one_that_has(name)
  if clock.waiting == 0 then return end
  for _, waiter in ipairs(call('ZREVRANGE', keys.waiters, 0, ASKED - 1)) do
    if wake.has(call('HGET', keys.worker(waiter), 'functions'), name) then
      return wake_this(waiter)
    end
  end
end

-- The due time that a worker had promised to wake for, when it waits no more: another one shall promise it.
function wake.hand_on(promised)
  if promised and tonumber(promised) == clock.timer and clock.timer > 0 then
    clock.timer = 0
    wake.one()
  end
end

-- Tells the holder of a running task that a cancel was asked for.
function wake.cancel(incarnation, id)
  call('LPUSH', keys.wake(incarnation), 'c' .. id)
end

-- Tells those who wait for a task's result or events. A message is 's' or 'p', the id, a newline, and then the state, the
-- reason (a byte each) and the attempt (u16), or the progress as the task told it.
function wake.watchers(id, message)
  for _, client in ipairs(call('SMEMBERS', keys.watchers(id))) do
    local list = keys.wake(client)
    call('RPUSH', list, message)
    call('LTRIM', list, -WATCH_LIMIT, -1)
    call('EXPIRE', list, WATCH_SECONDS)
  end
end
