-- list_users: one page of tenants, the largest first
-- KEYS  clock
-- ARGV  prefix settings order part offset limit
-- FLAGS no-writes
-- INCLUDE prelude keys clock shown
-- `order`: backlog | service | wait. `part`: list, the tenants that have any of it, then rest, the others.
-- REPLY next part ('' at the end), next offset, the clock's, then nine values for each user (lib/shown.lua)
local set = order == 'backlog' and keys.by_backlog or order == 'service' and keys.by_service or keys.by_wait
local at, wanted = tonumber(offset), tonumber(limit)
local rows = {}
local found = 0
local next_part, next_at = '', 0
if part == 'list' then
  local page = call('ZREVRANGE', set, at, at + wanted - 1)
  for _, user in ipairs(page) do shown.user(rows, user) end
  found = #page
  if found == wanted then
    next_part, next_at = 'list', at + wanted
  else
    part, at = 'rest', 0
  end
end
if next_part == '' then
  local page = call('ZRANGE', keys.users, at, at + wanted - found - 1)
  for _, user in ipairs(page) do
    if not call('ZSCORE', set, user) then shown.user(rows, user) end
  end
  if #page == wanted - found then next_part, next_at = 'rest', at + #page end
end
return {next_part, next_at, shown.clock(), rows}
