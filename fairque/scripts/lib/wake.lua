-- INCLUDE prelude keys clock record
-- EXPORTS wake
-- Who blocks on a list, and what is put there. Idle workers are woken one at a time: whoever claims and sees that more
-- is ready wakes the next.
local WATCH_LIMIT = 10000
local WATCH_SECONDS = 60
local ASKED = 100
local NO_NAMES = cmsgpack.pack({})
local wake = {}

-- Wakes one idle worker if there is something to claim.
function wake.one_if_ready()
  if clock.paused ~= 0 then return end
  local _, user = clock.front()
  if user then wake.one() end
end

function wake.one()
  local waiter = call('ZPOPMAX', keys.waiters)[1]
  if waiter then call('LPUSH', keys.wake(waiter), 'w') end
end

-- Whether a worker that announced these names (packed) can run a function. One that announced none takes all.
function wake.has(functions, name)
  return functions == NO_NAMES or (functions and string.find(functions, cmsgpack.pack(name), 1, true) ~= nil)
end

-- Wakes an idle worker that has the function.
function wake.one_that_has(name)
  for _, waiter in ipairs(call('ZREVRANGE', keys.waiters, 0, ASKED - 1)) do
    if wake.has(call('HGET', keys.worker(waiter), 'functions'), name) then
      call('ZREM', keys.waiters, waiter)
      call('LPUSH', keys.wake(waiter), 'w')
      return
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
