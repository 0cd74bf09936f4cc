-- bulk: cancel, requeue or delete tasks that are still as they were seen, until time is up
-- KEYS  clock
-- ARGV  prefix settings action items...
-- FLAGS allow-oom
-- INCLUDE prelude record clock scheduler actions writes wake budget finish_call
-- `action`: cancel | requeue | delete. Items: id, state (number), entered for each: in which state it was, and since when.
-- REPLY for each item that was come to: 1 done, 2 running: asked to stop, 0 gone, -1 it has changed since
local reply = {}
local act = actions[action]
scheduler.advance()
for i = ITEMS, #ARGV, 3 do
  local id = ARGV[i]
  local rec = record.load(id)
  if not rec then
    reply[#reply + 1] = 0
  elseif rec.state ~= tonumber(ARGV[i + 1]) or rec.entered ~= tonumber(ARGV[i + 2]) then
    reply[#reply + 1] = -1
  else
    reply[#reply + 1] = act(id, rec)
    writes.flush()
  end
  if #reply % 10 == 0 and budget.spent(1000) then break end
end
wake.one_if_ready()
finish_call()
return reply
