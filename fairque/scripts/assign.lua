-- assign: which worker entry serves which users, published in chunks and put in force at once
-- KEYS  clock
-- ARGV  prefix settings step digest items...
-- FLAGS allow-oom
-- INCLUDE prelude keys clock scheduler assigned wake finish_call
-- `step`: begin; add (user, words for each; words: o<entry> its owner, t<entry> who names it as a target); commit (packed
-- map of entry to {own: list | *, steal: list | * | none}); reindex (`digest`: how many users at most), which places known
-- users anew under the assignment and the rules in force. `digest`: of all that, by which publishers are told apart; the
-- newest that is committed wins.
-- REPLY begin: 0 if this is in force already; commit: 0 if users are still to be placed anew (reindex first); reindex: 1 if
-- some are left, else 0; otherwise 1
local in_force = call('HGET', keys.assign, 'digest') == digest
if step == 'begin' then return in_force and 0 or 1 end
if step == 'add' then
  for i = ITEMS, #ARGV, 2 do call('HSET', keys.assignment(digest), ARGV[i], ARGV[i + 1]) end
  call('EXPIRE', keys.assignment(digest), 600)
  return 1
end
local left = false
if step == 'reindex' then
  if clock.renewing == 0 then return 0 end
  scheduler.advance()
  left = not scheduler.renew(tonumber(digest))
else
  if in_force then
    -- Another publisher of the same was quicker. What was added since is but a part.
    call('UNLINK', keys.assignment(digest))
    return 1
  end
  if clock.renewing > 0 then return 0 end
  scheduler.advance()
  local lists = false
  call('UNLINK', keys.entries)
  for entry, sides in pairs(cmsgpack.unpack((select(ITEMS, unpack(ARGV))))) do
    lists = lists or sides.own == 'list' or sides.steal ~= '*'
    call('HSET', keys.entries, entry, sides.own .. ' ' .. sides.steal)
  end
  local number = tonumber(call('HGET', keys.assign, 'number') or 0) + 1
  if clock.assigned > 0 then call('HSET', keys.assign, 'previous', clock.assigned) end
  local named = lists and call('EXISTS', keys.assignment(digest)) == 1
  if not lists then
    call('UNLINK', keys.assignment(digest))
  elseif named then
    call('RENAME', keys.assignment(digest), keys.assignment(number))
    call('PERSIST', keys.assignment(number))
  end
  -- The last two for when keys are lost: what is in force, and whether it names users.
  call('HSET', keys.assign, 'digest', digest, 'number', number, 'force', lists and number or 0, 'named', named and 1 or 0)
  left = true
  if lists or clock.assigned > 0 then
    clock.assigned, clock.renewing = lists and number or 0, 1
    scheduler.renew(500)
  end
end
wake.one_if_ready()
finish_call()
return left and 1 or 0
