-- INCLUDE prelude keys clock levels
-- EXPORTS assigned
-- BEGIN assigned.begin()
-- Which workers serve whom (docs/fairness.md). Only in use while some entry names users: else everybody serves all.
--
-- Each level has a set for each word: o<entry>, users of that entry; u, users of none; t<entry>, whom it may steal from;
-- l, who has waited too long; l<entry>, those among its targets. A user that is ready stands in the sets of its words,
-- and an organisation in those in which any of its members stands. `fresh` holds users that are ready and not late, by
-- the time since when they wait.
local LATE_CHUNK = 32
local assigned = {}

function assigned.begin()
  assigned.sides_of = {}
end

local function set_of(level, word)
  return keys.members(level == clock and '' or level.user, word)
end

local function base_words(user, generation)
  if generation == 0 then return {} end
  local words = {}
  for word in string.gmatch(call('HGET', keys.assignment(generation), user) or 'u', '%S+') do words[#words + 1] = word end
  if string.sub(words[1], 1, 1) == 't' then table.insert(words, 1, 'u') end
  return words
end

-- All words of a user as it was placed under a generation.
local function words_of(t, generation, late)
  if t.words_for ~= generation then t.words_for, t.base = generation, base_words(t.user, generation) end
  if not late or generation == 0 then return t.base end
  local words = {'l'}
  for _, word in ipairs(t.base) do
    words[#words + 1] = word
    if string.sub(word, 1, 1) == 't' then words[#words + 1] = 'l' .. string.sub(word, 2) end
  end
  return words
end

-- Into a level's set, or out of it. An organisation keeps count of its members' words, and leaves with the last one.
local function put(t, word, wanted)
  local level = t.level
  if wanted then
    if call('ZADD', set_of(level, word), t.tag, t.user) == 1 and level ~= clock then
      call('HINCRBY', keys.words(level.user), word, 1)
    end
  elseif call('ZREM', set_of(level, word), t.user) == 1 and level ~= clock then
    if call('HINCRBY', keys.words(level.user), word, -1) == 0 then
      call('HDEL', keys.words(level.user), word)
      call('ZREM', set_of(clock, word), level.user)
    end
  end
end

-- A user's ready set, tag, lateness or assignment has changed.
local function place_user(t)
  local old = t.in_words or (t.was_ready and words_of(t, t.indexed, t.was_late)) or {}
  local new = t.ready and words_of(t, clock.assigned, t.late) or {}
  local kept = {}
  for _, word in ipairs(new) do kept[word] = true end
  for _, word in ipairs(old) do
    if not kept[word] then put(t, word, false) end
  end
  for _, word in ipairs(new) do put(t, word, true) end
  t.in_words, t.indexed = new, clock.assigned
  if clock.assigned == 0 then t.late = false end
  if t.ready and not t.late and clock.assigned > 0 then
    call('ZADD', keys.fresh, string.format('%.17g', t.since), t.user)
  else
    call('ZREM', keys.fresh, t.user)
  end
end

-- An organisation stands where its members do, while it is ready itself.
local function place_group(t)
  for _, word in ipairs(call('HKEYS', keys.words(t.user))) do put(t, word, t.ready) end
end

function assigned.place(t)
  if clock.assigned == 0 and t.indexed == 0 then return end
  if t.inner then
    place_group(t)
    t.indexed = clock.assigned
  else
    place_user(t)
  end
end

-- Those who have waited too long for their own workers.
function assigned.grow_late(tenant)
  local late = call('ZRANGEBYSCORE', keys.fresh, '-inf', string.format('%.17g', clock.now - conf.steal_after), 'LIMIT', 0,
    LATE_CHUNK)
  for _, user in ipairs(late) do
    local t = tenant(user)
    t.late = t.ready
    place_user(t)
    if t.group then assigned.place(t.group) end
  end
end

-- Whom an entry serves: the words of those that compete first, and the one of those who get what is left; nil: all.
function assigned.sides(entry)
  if clock.assigned == 0 or entry == '' then return nil end
  local sides = assigned.sides_of[entry]
  if sides then return sides end
  local own, steal = string.match(call('HGET', keys.entries, entry) or 'list *', '^(%S+) (%S+)$')
  sides = {own = {own == '*' and 'u' or 'o' .. entry}}
  if steal == '*' then
    sides.own[2], sides.others = 'l', {''}
  elseif steal == 'list' then
    sides.own[2], sides.others = 'l' .. entry, {'t' .. entry}
  end
  assigned.sides_of[entry] = sides
  return sides
end

-- The smallest tag in the sets of some words.
function assigned.first(level, words)
  local best, best_tag
  for _, word in ipairs(words) do
    local first, tag
    if word == '' then
      tag, first = levels.front(level)
    else
      local found = call('ZRANGE', set_of(level, word), 0, 0, 'WITHSCORES')
      first, tag = found[1], tonumber(found[2])
    end
    if first and (not best or levels.before(tag, first, best_tag, best)) then best, best_tag = first, tag end
  end
  return best
end

function assigned.has(user, word)
  return word == '' or call('ZSCORE', set_of(clock, word), user) ~= false
end

-- No tenant stands in the sets of the assignment before this one any more.
function assigned.forget_previous()
  local previous = call('HGET', keys.assign, 'previous')
  if previous then
    call('UNLINK', keys.assignment(previous))
    call('HDEL', keys.assign, 'previous')
  end
end

-- Whether a user is not the entry's own.
function assigned.is_stranger(t, sides)
  for _, word in ipairs(words_of(t, clock.assigned, false)) do
    if word == sides.own[1] then return false end
  end
  return true
end

-- Who stands where it must not: an organisation where none of its members does, or one who is not ready.
function assigned.strike(user, words, level)
  for _, word in ipairs(words) do
    if word ~= '' then call('ZREM', set_of(level, word), user) end
  end
end

-- Should what is stored be damaged (lib/reconcile.lua).

local function score(key, user)
  return tonumber(call('ZSCORE', key, user) or nil)
end

local function group_agrees(t, ready)
  local words = call('HGETALL', keys.words(t.user))
  for i = 1, #words, 2 do
    if call('ZCARD', keys.members(t.user, words[i])) ~= tonumber(words[i + 1])
        or score(set_of(clock, words[i]), t.user) ~= (ready and t.tag or nil) then
      return false
    end
  end
  return true
end

-- Whether the sets have a tenant where they must.
function assigned.agrees(t, level, ready)
  if clock.assigned == 0 and t.indexed == 0 then return true end
  if t.inner then return group_agrees(t, ready) end
  if t.indexed ~= clock.assigned then return clock.renewing > 0 or not ready end
  if score(keys.fresh, t.user) ~= (ready and not t.late and clock.assigned > 0 and t.since or nil) then return false end
  local wanted = {}
  for _, word in ipairs(ready and words_of(t, clock.assigned, t.late) or {}) do wanted[word] = true end
  for _, word in ipairs(words_of(t, clock.assigned, true)) do
    local at = score(set_of(level, word), t.user)
    if at ~= (wanted[word] and t.tag or nil) then return false end
    if at and level ~= clock and call('HEXISTS', keys.words(level.user), word) == 0 then return false end
  end
  return true
end

-- Nothing is known of where a user stands: when it is placed next, it leaves all sets in which it must not.
function assigned.doubt(t)
  if not t.inner then t.in_words = words_of(t, clock.assigned, true) end
end

-- How many members of an organisation stand in each of its sets, after one of them was placed.
function assigned.recount(t)
  local group = t.inner and t or t.group
  if not group or clock.assigned == 0 then return end
  for _, word in ipairs(t.inner and call('HKEYS', keys.words(t.user)) or words_of(t, clock.assigned, true)) do
    local members = call('ZCARD', keys.members(group.user, word))
    if members > 0 then
      call('HSET', keys.words(group.user), word, members)
    else
      call('HDEL', keys.words(group.user), word)
      call('ZREM', set_of(clock, word), group.user)
    end
  end
  place_group(group)
end

-- The users of the assignment in force are lost: all serve all, until one is published again.
local function abandon()
  local names = {'u', 'l'}
  for _, entry in ipairs(call('HKEYS', keys.entries)) do
    for _, mark in ipairs({'o', 't', 'l'}) do names[#names + 1] = mark .. entry end
  end
  for _, word in ipairs(names) do call('UNLINK', keys.members('', word)) end
  for _, name in ipairs(call('HKEYS', keys.groups)) do
    local group = ':' .. name
    for _, word in ipairs(call('HKEYS', keys.words(group))) do call('UNLINK', keys.members(group, word)) end
    call('DEL', keys.words(group))
  end
  call('UNLINK', keys.fresh)
  call('HSET', keys.assign, 'force', 0)
  clock.assigned, clock.renewing = 0, 1
end

-- Whether what the assignment in force consists of is there. If not, the next worker that starts publishes it again.
function assigned.check()
  if clock.assigned == 0 then return true end
  if call('HGET', keys.assign, 'force') ~= tostring(clock.assigned) then
    call('HSET', keys.assign, 'number', clock.assigned, 'force', clock.assigned)
    return false
  end
  local there = call('EXISTS', keys.assignment(clock.assigned)) == 1 or call('HGET', keys.assign, 'named') ~= '1'
  if there and call('EXISTS', keys.entries) == 1 then return true end
  if not there then abandon() end
  return call('HDEL', keys.assign, 'digest') == 0
end

-- Whether there is anything that a worker of this entry may claim.
function assigned.may_claim(entry)
  local sides = assigned.sides(entry)
  if not sides then return levels.front(clock) ~= nil end
  return assigned.first(clock, sides.own) ~= nil or (sides.others ~= nil and assigned.first(clock, sides.others) ~= nil)
end
