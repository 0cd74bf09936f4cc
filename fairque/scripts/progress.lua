-- progress: a running task tells how far it is
-- KEYS  clock
-- ARGV  prefix settings ttl items...
-- FLAGS allow-oom
-- INCLUDE prelude states keys record wake
-- Items: id, token, progress (encoded). `ttl` in ms.
-- REPLY how many were taken
local taken = 0
for i = ITEMS, #ARGV, 3 do
  local id = ARGV[i]
  local rec = record.load(id)
  if rec and rec.state == STARTED and rec.token == ARGV[i + 1] then
    call('SET', keys.progress(id), ARGV[i + 2], 'PX', ttl)
    if record.has(rec, WATCHED) then wake.watchers(id, 'p' .. id .. '\n' .. ARGV[i + 2]) end
    taken = taken + 1
  end
end
return taken
