-- find_tasks: one page of a state's registry, or of a user's dead letters, as far as it fits a filter
-- KEYS  clock
-- ARGV  prefix settings source user score id limit users functions filter form
-- FLAGS no-writes
-- INCLUDE prelude keys states record clock budget
-- `source`: a state's name, or dlq (then `user` says whose). `user`: '' for all. `score`, `id`: behind which entry to go
-- on, or '' ''. `users`, `functions`: patterns, or ''. `filter`: packed map of priorities (a set), µs that a task has been
-- in its state (older, younger; scheduled: been pushed), and when that must have begun at the latest (before).
-- `form`: what is told of each: ids, tasks, last (and the last error), or errors.
-- REPLY the time, score and id to go on from ('' '' at the end), then for each: id, state, entered, record, errors (a list)
local BYTES, LOOKED, STRIDE = 4194304, 1000, 100
local wanted, fits = tonumber(limit), cmsgpack.unpack(filter)
local set = source == 'dlq' and keys.dlq(user) or keys.state(source)
local by_entry = source ~= 'scheduled'
local from = fits.younger and clock.now - fits.younger
local to = math.min(fits.older and clock.now - fits.older or math.huge, fits.before or math.huge)

local function comes_before(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = string.byte(one, i), string.byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- The rank of what follows an entry, be that still there or not.
local function rank_behind(at, name)
  if at == '' then return 0 end
  local there = call('ZSCORE', set, name)
  if there and tonumber(there) == tonumber(at) then return call('ZRANK', set, name) + 1 end
  local low = call('ZCOUNT', set, '-inf', '(' .. at)
  local high = low + call('ZCOUNT', set, at, at)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local other = call('ZRANGE', set, middle, middle)[1]
    if comes_before(other, name) or other == name then low = middle + 1 else high = middle end
  end
  return low
end

-- A user's id as it was before it was encoded (core/keys.py).
local function plain(name)
  if not string.find(name, '%', 1, true) then return name end
  return (string.gsub(name, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end))
end

local function matches(rec)
  if user ~= '' and rec.user ~= user then return false end
  if fits.priorities and not fits.priorities[rec.priority] then return false end
  local since = by_entry and rec.entered or rec.created
  if (from and since < from) or since > to then return false end
  return (users == '' or string.match(plain(rec.user), users) ~= nil)
    and (functions == '' or string.match(rec.func, functions) ~= nil)
end

local reply = {string.format('%.0f', clock.now), '', ''}
local looked, found, bytes = 0, 0, 0

local function tell(name, rec)
  local told, errors = '', {}
  if form ~= 'ids' then
    told = record.whole(rec)
    if form ~= 'tasks' then errors = call('LRANGE', keys.errors(name), form == 'last' and -1 or 0, -1) end
  end
  bytes = bytes + #told
  for _, error in ipairs(errors) do bytes = bytes + #error end
  for _, value in ipairs({name, rec.state, string.format('%.0f', rec.entered), told, errors}) do reply[#reply + 1] = value end
  found = found + 1
end

-- Goes on until a page is full; returns where it stopped, or nothing at the end.
local function walk(rank)
  while true do
    local rows = call('ZRANGE', set, rank, rank + STRIDE - 1, 'WITHSCORES')
    for i = 1, #rows, 2 do
      if by_entry and tonumber(rows[i + 1]) > to then return end
      local rec
      if form == 'ids' then rec = record.load(rows[i]) else rec = record.load_whole(rows[i]) end
      looked = looked + 1
      -- (What has changed its state without its registry is mended by others.)
      if rec and (source == 'dlq' and rec.state == FAILED or STATE_NAMES[rec.state] == source) and matches(rec) then
        tell(rows[i], rec)
      end
      if found == wanted or looked == LOOKED or bytes > BYTES or (looked % 20 == 0 and budget.spent(200)) then
        return rows[i + 1], rows[i]
      end
    end
    if #rows < 2 * STRIDE then return end
    rank = rank + STRIDE
  end
end

local start = rank_behind(score, id)
if from and by_entry then start = math.max(start, call('ZCOUNT', set, '-inf', '(' .. string.format('%.17g', from))) end
local last_score, last_id = walk(start)
if last_score then reply[2], reply[3] = last_score, last_id end
return reply
