-- reconcile: what is stored twice is compared and mended, in bounded steps
-- KEYS  clock
-- ARGV  prefix settings step cursor
-- FLAGS allow-oom
-- INCLUDE prelude keys clock tenants scheduler repairs mend reconcile wake finish_call
-- `step`: broken (what is no queue any more, of users), tasks (all that are stored), a state's name (its registry),
-- claims (at once: what workers hold says what runs), limiters, groups, users, placing (users of levels that have begun
-- anew for it), sums (what organisations count of their members), or count (an organisation against its members, packed
-- in `cursor`: the one, then the others). `cursor`: 0, then that of the page before.
-- REPLY next cursor ('' at the end), how many were looked at, repairs (whose, what of it, what it was and is), and a list:
-- of users, the members on this page (organisation, user, queued, delayed); of sums, organisations (itself, '', queued,
-- delayed)
local PAGE = 500
scheduler.advance()
local following, list = '0', {}

local function names_of(hash, visit)
  local page = call('HSCAN', hash, cursor, 'COUNT', PAGE)
  for i = 1, #page[2], 2 do visit(page[2][i]) end
  return page[1]
end

-- With all registries seen, it is the user's count of delayed tasks that is wrong.
local function user(name)
  mend.user(name)
  mend.delayed(name)
  mend.list_member(name, list)
end

local function sums_of(name)
  local t = tenants.peek(':' .. name)
  if not t then return end
  for _, value in ipairs({t.user, '', t.normal, t.delayed}) do list[#list + 1] = value end
end

local function walk(visit)
  return string.format('%.17g', reconcile.walk(tonumber(cursor), PAGE, visit))
end

if step == 'claims' then
  reconcile.claims()
elseif step == 'limiters' then
  following = names_of(keys.limiters, mend.limiter)
elseif step == 'groups' then
  following = names_of(keys.groups, function(name) mend.group(':' .. name) end)
elseif step == 'users' then
  following = walk(user)
elseif step == 'sums' then
  following = names_of(keys.groups, sums_of)
elseif step == 'count' then
  local members = cmsgpack.unpack(cursor)
  mend.sums(table.remove(members, 1), members)
elseif step == 'placing' then
  if clock.renewing > 0 and not scheduler.renew(PAGE) then following = '1' end
elseif step == 'broken' then
  following = walk(reconcile.broken)
elseif step == 'tasks' then
  following = reconcile.scan(cursor)
else
  following = tostring(reconcile.registry(step, tonumber(cursor)))
end
wake.one_if_ready()
finish_call()
return {(following == '0' or following == '-1') and '' or following, repairs.looked, repairs.list, list}
