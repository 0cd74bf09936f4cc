-- push: new -> queued | scheduled
-- KEYS  clock
-- ARGV  prefix settings items...
-- FLAGS
-- INCLUDE prelude keys record clock tenants scheduler tasks store debounce writes wake links finish_call
-- Items: id, record, due, on_duplicate, dedup_window for each task. `due`: µs of the server's clock, or minus a delay
-- in µs, or 0. `on_duplicate`: reject | return | throttle | debounce. `dedup_window` in ms: -1 no key, 0 until
-- the task has ended. With debounce the window says when it is due, and `due` how many µs after the first push at the latest.
-- REPLY for each item: code, id. 1 stored, 2 an existing task is returned, 0 refused: the id or key is taken (by id);
-- 3 refused: over a quota (whose, how much waits, the limit, seconds until there is likely to be room, or -); 4 refused:
-- there is no such limiter (its name); 10 dropped: the key of a throttle is taken (by id); 11 it has replaced what a task that
-- waits was to do (its id).
local reply = {}
local earliest
local stored, joined = 0, 0
local seen = {}

-- Whether any of the ids is taken, or some task waits for one that has not come yet.
local names = {keys.missing}
for i = ITEMS, #ARGV, 5 do names[#names + 1] = keys.task(ARGV[i]) end
local any_taken = call('EXISTS', unpack(names)) > 0

for i = ITEMS, #ARGV, 5 do
  local id, rec = ARGV[i], record.parse(ARGV[i + 1])
  local mode, window = ARGV[i + 3], tonumber(ARGV[i + 4])
  if seen[id] then writes.flush() end
  local code, holder
  local put_off
  if mode == 'debounce' then
    code, holder, put_off = debounce.join(id, rec, window, tonumber(ARGV[i + 2]))
    if code == 11 then joined = joined + 1 end
    if put_off and (not earliest or put_off < earliest) then earliest = put_off end
  elseif any_taken or window >= 0 or seen[id] then
    code, holder = store.existing(id, rec, mode, window)
  end
  if not code then code, holder = store.refusal(rec) end
  if not code then
    code, holder = 1, id
    -- Not before: a call that stores nothing writes nothing.
    if stored == 0 then scheduler.advance() end
    if any_taken then links.appeared(id, rec) end
    local due
    if mode == 'debounce' then
      due = store.put(id, rec, -window * 1000, 0)
    else
      due = store.put(id, rec, tonumber(ARGV[i + 2]), window)
    end
    if due and (not earliest or due < earliest) then earliest = due end
    stored, seen[id] = stored + 1, true
  end
  reply[#reply + 1] = code
  reply[#reply + 1] = holder
end
if stored + joined > 0 then
  clock.pushed = clock.pushed + stored
  wake.one_if_ready()
  -- An earlier due time than anybody waits for: somebody must set a new alarm.
  if earliest and (clock.timer == 0 or earliest < clock.timer or clock.timer < clock.now) then
    clock.timer = 0
    wake.one()
  end
end
if stored + joined > 0 or tenants.changed then finish_call() end
return reply
