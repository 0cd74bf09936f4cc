-- INCLUDE prelude keys
-- EXPORTS stats
-- BEGIN stats.forget()
-- Counters of the whole queue, added up during a call and written once.
local stats = {counts = {}}

-- Those of the last call, if it failed before it wrote them.
function stats.forget()
  if next(stats.counts) then stats.counts = {} end
end

function stats.add(name, by)
  stats.counts[name] = (stats.counts[name] or 0) + (by or 1)
end

function stats.save()
  for name, by in pairs(stats.counts) do
    call('HINCRBY', keys.stats, name, by)
  end
end
