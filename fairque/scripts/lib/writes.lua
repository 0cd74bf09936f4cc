-- INCLUDE prelude keys states
-- EXPORTS writes
-- BEGIN writes.begin()
-- What a call changes for many tasks at once: the registries of states, what the caller holds, and records. It is kept
-- until flush(), which says it in a few commands with many arguments. Whoever reads these keys in the same call flushes
-- before.
local CHUNK = 2000
local writes = {}
local ids, from, to, score, count = {}, {}, {}, {}, 0
local holder, held, dropped
local records, gone

function writes.begin()
  count = 0
  holder, held, dropped, records, gone = nil, nil, nil, nil, nil
end

-- Whose leases are kept back here; others' are written at once.
function writes.for_holder(incarnation)
  holder = incarnation
end

-- From the registry of one state (0: none) into that of another (0: none); a task at most once between two flushes.
function writes.move(id, before, after, at)
  count = count + 1
  ids[count], from[count], to[count], score[count] = id, before, after, at
end

function writes.hold(incarnation, id, entry)
  if incarnation ~= holder then return call('HSET', keys.held(incarnation), id, entry) end
  held = held or {}
  held[#held + 1] = id
  held[#held + 1] = entry
end

function writes.drop(incarnation, id)
  if incarnation ~= holder then return call('HDEL', keys.held(incarnation), id) end
  dropped = dropped or {}
  dropped[#dropped + 1] = id
end

function writes.record(key, data)
  records = records or {}
  records[#records + 1] = key
  records[#records + 1] = data
end

function writes.delete(key)
  gone = gone or {}
  gone[#gone + 1] = key
end

-- One command for all arguments, or a few: `unpack` has a limit.
local function say(command, key, arguments)
  if #arguments <= CHUNK then
    if key then return call(command, key, unpack(arguments)) end
    return call(command, unpack(arguments))
  end
  for i = 1, #arguments, CHUNK do
    local last = math.min(i + CHUNK - 1, #arguments)
    if key then call(command, key, unpack(arguments, i, last)) else call(command, unpack(arguments, i, last)) end
  end
end

local function flush_moves()
  local left, entered = {}, {}
  for i = 1, count do
    local before, after = from[i], to[i]
    if before > 0 and before ~= after then
      left[before] = left[before] or {}
      left[before][#left[before] + 1] = ids[i]
    end
    if after > 0 then
      entered[after] = entered[after] or {}
      local list = entered[after]
      list[#list + 1] = score[i]
      list[#list + 1] = ids[i]
    end
  end
  for state, list in pairs(left) do say('ZREM', keys.state(STATE_NAMES[state]), list) end
  for state, list in pairs(entered) do say('ZADD', keys.state(STATE_NAMES[state]), list) end
  count = 0
end

function writes.flush()
  if count > 0 then flush_moves() end
  if dropped then say('HDEL', keys.held(holder), dropped) end
  if held then say('HSET', keys.held(holder), held) end
  if records then say('MSET', nil, records) end
  if gone then say('UNLINK', nil, gone) end
  dropped, held, records, gone = nil, nil, nil, nil
end
