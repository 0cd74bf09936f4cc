-- INCLUDE prelude keys clock tenants scheduler mend reconcile
-- EXPORTS steps
-- Going through all that is stored, step by step, each in pages (scripts reconcile and examine).
local PAGE = 500
local steps = {}

local function names_of(hash, cursor, visit)
  local page = call('HSCAN', hash, cursor, 'COUNT', PAGE)
  for i = 1, #page[2], 2 do visit(page[2][i]) end
  return page[1]
end

local function walk(cursor, visit)
  return string.format('%.17g', reconcile.walk(tonumber(cursor), PAGE, visit))
end

-- One page: where to go on ('0' or '-1': it was the last), and what the step has to tell (reconcile.lua).
function steps.take(step, cursor)
  local list = {}
  if step == 'claims' then
    reconcile.claims()
  elseif step == 'limiters' then
    return names_of(keys.limiters, cursor, mend.limiter), list
  elseif step == 'groups' then
    return names_of(keys.groups, cursor, function(name) mend.group(':' .. name) end), list
  elseif step == 'users' then
    return walk(cursor, function(name)
      mend.user(name)
      -- With all registries seen, it is the user's count of delayed tasks that is wrong.
      mend.delayed(name)
      mend.list_member(name, list)
    end), list
  elseif step == 'sums' then
    return names_of(keys.groups, cursor, function(name)
      local t = tenants.peek(':' .. name)
      if not t then return end
      for _, value in ipairs({t.user, '', t.normal, t.delayed}) do list[#list + 1] = value end
    end), list
  elseif step == 'count' then
    local members = cmsgpack.unpack(cursor)
    mend.sums(table.remove(members, 1), members)
  elseif step == 'placing' then
    if clock.renewing > 0 and not scheduler.renew(PAGE) then return '1', list end
  elseif step == 'broken' then
    return walk(cursor, reconcile.broken), list
  elseif step == 'tasks' then
    return reconcile.scan(cursor), list
  else
    return tostring(reconcile.registry(step, tonumber(cursor))), list
  end
  return '0', list
end
