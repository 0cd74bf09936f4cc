-- INCLUDE prelude keys states triggers
-- EXPORTS upstream
-- Who waits for whom. `keys.downstream(id)`: those that wait for a task. `keys.upstream(id)`: a hash of what a task waits for,
-- by id, each with how it ended; and under '' the counts of them, with all else that the task needs to be let go.
-- A task that has either is marked LINKED; nobody looks for these keys of any other.
local META = '>BI4I4I4I4I4ddI4'
local PENDING, MISSING, VANISHED = '0', 'm', 'g'
local ARGUMENTS = 4000
local TALLY_OF = {s = 'succeeded', f = 'failed', c = 'canceled', g = 'failed', ['0'] = 'pending', m = 'pending'}
local upstream = {OUTCOMES = {[FINISHED] = 's', [FAILED] = 'f', [CANCELED] = 'c'}}

function upstream.parse(data)
  local meta = {}
  local at
  meta.rule, meta.succeeded, meta.failed, meta.canceled, meta.pending, meta.missing, meta.due, meta.ttl,
    meta.children, at = struct.unpack(META, data)
  meta.workflow = string.sub(data, at)
  return meta
end

function upstream.packed(meta)
  return struct.pack(META, meta.rule, meta.succeeded, meta.failed, meta.canceled, meta.pending, meta.missing, meta.due,
    meta.ttl, meta.children) .. meta.workflow
end

function upstream.meta(id)
  local data = call('HGET', keys.upstream(id), '')
  return data and upstream.parse(data) or nil
end

function upstream.decide(meta)
  return decide_trigger(meta.rule, meta.succeeded, meta.failed, meta.canceled, meta.pending)
end

function upstream.count(meta, outcome, by)
  local name = TALLY_OF[outcome]
  meta[name] = meta[name] + by
  if outcome == MISSING then meta.missing = meta.missing + by end
end

-- Fields and their values, of any number.
function upstream.write(key, list)
  for i = 1, #list, ARGUMENTS do
    call('HSET', key, unpack(list, i, math.min(i + ARGUMENTS - 1, #list)))
  end
end
