-- push: new -> queued | scheduled
-- KEYS  clock
-- ARGV  prefix settings items...
-- FLAGS
-- INCLUDE prelude keys record clock tenants scheduler tasks store writes wake links finish_call
-- Items: id, record, due, on_duplicate, dedup_window for each task. `due`: µs of the server's clock, or minus a delay
-- in µs, or 0. `on_duplicate`: reject | return. `dedup_window` in ms: -1 no key, 0 until the task has ended.
-- REPLY for each item: code, id. 1 stored, 2 an existing task is returned, 0 refused: the id or key is taken (by id);
-- 3 refused: over a quota (whose, how much waits, the limit, seconds until there is likely to be room, or -); 4 refused:
-- there is no such limiter (its name).
local reply = {}
local earliest
local stored = 0
local seen = {}

-- Whether any of the ids is taken, or some task waits for one that has not come yet.
local names = {keys.missing}
for i = ITEMS, #ARGV, 5 do names[#names + 1] = keys.task(ARGV[i]) end
local any_taken = call('EXISTS', unpack(names)) > 0

for i = ITEMS, #ARGV, 5 do
  local id, rec = ARGV[i], record.parse(ARGV[i + 1])
  local window = tonumber(ARGV[i + 4])
  if seen[id] then writes.flush() end
  local code, holder
  if any_taken or window >= 0 or seen[id] then code, holder = store.existing(id, rec, ARGV[i + 3], window) end
  if not code then code, holder = store.refusal(rec) end
  if not code then
    code, holder = 1, id
    -- Not before: a call that stores nothing writes nothing.
    if stored == 0 then scheduler.advance() end
    if any_taken then links.appeared(id, rec) end
    local due = store.put(id, rec, tonumber(ARGV[i + 2]), window)
    if due and (not earliest or due < earliest) then earliest = due end
    stored, seen[id] = stored + 1, true
  end
  reply[#reply + 1] = code
  reply[#reply + 1] = holder
end
if stored > 0 then
  clock.pushed = clock.pushed + stored
  wake.one_if_ready()
  -- An earlier due time than anybody waits for: somebody must set a new alarm.
  if earliest and (clock.timer == 0 or earliest < clock.timer or clock.timer < clock.now) then
    clock.timer = 0
    wake.one()
  end
end
if stored > 0 or tenants.changed then finish_call() end
return reply
