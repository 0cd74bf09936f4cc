-- EXPORTS budget
-- BEGIN budget.begin()
-- How long a call has taken, so that it can stop in time. TIME may stand still while a function runs, the processor's
-- clock does not; what other threads of the server use meanwhile counts too, so that it stops early rather than late.
-- Where functions have no clock (before Redis 7.4 and Valkey 8), what the work usually takes is added up instead.
local MICROS = 4000
local budget = {}
local has_clock, processor, begun, added

function budget.begin()
  -- (While the library is loaded nothing of the language is there.)
  if has_clock == nil then has_clock, processor = pcall(function() return os.clock end) end
  begun, added = has_clock and processor() or 0, 0
end

-- Whether it is time to answer: others wait. `usual`: microseconds that the work since the last question usually takes.
function budget.spent(usual)
  if has_clock then return (processor() - begun) * 1000000 > MICROS end
  added = added + usual
  return added > MICROS
end
