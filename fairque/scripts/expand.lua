-- expand: started -> deferred: a mapped task has a task made for each item of a list, some at a time, and waits for them
-- KEYS  clock
-- ARGV  prefix settings id token items...
-- FLAGS
-- INCLUDE prelude states keys record clock tenants scheduler tasks store leases writes wake upstream links workflows graph finish_call
-- Items: new tasks (lib/graph.lua); without any, only the reply is wanted.
-- REPLY how many there are now, or -1: the claim is no longer the task's current one
-- ERRORS FQ_NOT_FOUND what it waits for was lost
local rec = record.load(id)
if not rec or rec.state ~= STARTED or rec.token ~= token then return -1 end
local meta = upstream.meta(id)
if not meta then refuse('NOT_FOUND', id) end
if #ARGV < ITEMS then return meta.children end
scheduler.advance()
local children, waits = {}, {}
for i = ITEMS, #ARGV do
  local node = graph.read(ARGV[i])
  node.workflow = meta.workflow
  -- One that is there already was made by a claim that ended in between.
  if call('EXISTS', keys.task(node.id)) == 0 then
    links.look(node, {})
    record.mark(node.rec, LINKED)
    graph.put(node, RUN, {}, waits)
    children[#children + 1] = node.id
  end
end
writes.flush()
if children[1] then
  if meta.workflow ~= '' then workflows.add(meta.workflow, children) end
  links.await_children(id, meta, children)
end
local t = tenants.get(rec.user)
leases.drop(rec.holder, id)
scheduler.give_back(t, rec)
record.unmark(rec, LANE)
rec.charged, rec.attempt, rec.token = 0, rec.attempt - 1, NO_TOKEN
tasks.move(id, rec, DEFERRED, clock.now)
record.save(id, rec)
scheduler.place(t)
wake.one_if_ready()
finish_call()
return meta.children
