-- INCLUDE prelude keys clock wake
-- EXPORTS later
-- Work that is too much for one call is recorded, and any later call of a worker goes on with it (lib/continue.lua).
local later = {}

function later.add(entry)
  call('RPUSH', keys.continued, entry)
  clock.continuing = clock.continuing + 1
end

-- Somebody shall go on soon.
function later.remind()
  if clock.continuing > 0 then wake.one() end
end
