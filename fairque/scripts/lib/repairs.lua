-- INCLUDE prelude keys stats
-- EXPORTS repairs
-- BEGIN repairs.begin()
-- What a call has compared, and what it has mended of it.
local repairs = {list = {}}

function repairs.begin()
  repairs.looked = 0
  if repairs.list[1] then repairs.list = {} end
end

function repairs.look()
  repairs.looked = repairs.looked + 1
end

-- Whose, what of it, what that was and what it is now.
function repairs.tell(name, what, was, is)
  local list = repairs.list
  for _, value in ipairs({name, what, tostring(was), tostring(is)}) do list[#list + 1] = value end
end

function repairs.mended(name, what, was, is)
  stats.add('healed')
  repairs.tell(name, what, was, is)
end

function repairs.score(key, member)
  return tonumber(call('ZSCORE', key, member) or nil)
end
