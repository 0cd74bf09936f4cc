-- INCLUDE prelude keys states record
-- EXPORTS erase
-- Everything that is stored of a task, but its place in its user's queue and what is counted of it. Returns 1 if there was
-- a record.
local function erase(id, rec)
  if rec then
    if rec.dedup_size > 0 then
      local key = keys.dedup(rec.user, record.dedup(rec))
      if call('GET', key) == id then call('DEL', key) end
    end
    call('ZREM', keys.state(STATE_NAMES[rec.state]), id)
    if rec.expires > 0 then call('ZREM', keys.expiring, id) end
    if record.has(rec, UNKNOWN) then call('ZREM', keys.passed, id) end
    -- What it waited for goes with it; of one that has not ended, those that wait for it are told first (lib/deps.lua).
    if record.has(rec, LINKED) and not TRANSITIONS[rec.state][CANCELED] then call('UNLINK', keys.upstream(id)) end
  end
  local there = call('UNLINK', keys.task(id))
  call('UNLINK', keys.result(id), keys.errors(id), keys.progress(id), keys.watchers(id))
  return there
end
