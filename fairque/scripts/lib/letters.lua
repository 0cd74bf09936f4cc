-- INCLUDE prelude keys states record clock tenants stats writes erase
-- EXPORTS letters
-- Dead letters. Each user's stand in a set of its own, by when they died; `by_dead` has the users with any, by how many.
-- What is told of them is kept for a while, for whoever asks first (dead_news.lua).
local NEWS = 1000
local NEWS_SECONDS = 3600
local TRIM = 10
local letters = {}

-- How many a user has, as its set says; `by_dead` is told.
function letters.recount(user)
  local count = redis.pcall('ZCARD', keys.dlq(user))
  if tenants.is_broken(count) then count = 0 end
  if count > 0 then call('ZADD', keys.by_dead, count, user) else call('ZREM', keys.by_dead, user) end
  return count
end

-- A user's task is no dead letter any more.
function letters.take_out(id, user)
  redis.pcall('ZREM', keys.dlq(user), id)
  letters.recount(user)
end

-- Others are still to be told how it ended: in this call, or in later ones (lib/deps.lua).
local function is_awaited(id, rec)
  return record.has(rec, LINKED) and (rec.entered > clock.last or call('EXISTS', keys.downstream(id)) == 1)
end

-- The oldest of a user go for ever, `limit` at most, but not `kept`, nor those that others have yet to hear of. `counter`:
-- what counts them. Returns how many went.
function letters.drop_oldest(user, limit, counter, kept)
  writes.flush()
  local gone = 0
  for _, id in ipairs(call('ZRANGE', keys.dlq(user), 0, limit)) do
    if gone == limit then break end
    if id ~= kept then
      local rec = record.load(id)
      local is_dead = rec and rec.state == FAILED and rec.user == user
      if not (is_dead and is_awaited(id, rec)) then
        call('ZREM', keys.dlq(user), id)
        if is_dead then
          erase(id, rec)
          stats.add(counter)
        end
        gone = gone + 1
      end
    end
  end
  letters.recount(user)
  return gone
end

-- More than a user may have go, a few with each that comes; the sweep takes the rest.
function letters.trim(user, count, kept)
  if conf.max_dead <= 0 or count <= conf.max_dead then return 0 end
  return letters.drop_oldest(user, math.min(count - conf.max_dead, TRIM), 'dead_letters_dropped', kept)
end

-- A task has died.
function letters.add(id, rec)
  if tenants.is_broken(redis.pcall('ZADD', keys.dlq(rec.user), clock.now, id)) then return end
  local count = letters.recount(rec.user)
  local passed = count == conf.dead_alert and 1 or 0
  count = count - letters.trim(rec.user, count, id)
  call('RPUSH', keys.dead_news, cmsgpack.pack({id, rec.user, rec.func, rec.reason, rec.attempt, clock.now, count, passed}))
  call('LTRIM', keys.dead_news, -NEWS, -1)
  call('EXPIRE', keys.dead_news, NEWS_SECONDS)
end

-- A dead letter goes for ever.
function letters.remove(id, rec)
  letters.take_out(id, rec.user)
  return erase(id, rec)
end
