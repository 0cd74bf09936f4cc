-- INCLUDE prelude keys
-- EXPORTS stats
-- Counters of the whole queue, added up during a call and written once.
local stats = {counts = {}}

function stats.add(name, by)
  stats.counts[name] = (stats.counts[name] or 0) + (by or 1)
end

function stats.save()
  for name, by in pairs(stats.counts) do
    call('HINCRBY', keys.stats, name, by)
  end
end
