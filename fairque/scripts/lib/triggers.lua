-- INCLUDE states record
-- EXPORTS decide_trigger
-- Trigger rules, by their number.
local ALL_SUCCESS, ALL_DONE, ONE_SUCCESS, ONE_FAILED, NONE_FAILED = 1, 2, 3, 4, 5
local RUN, WAIT, NEVER = 1, 2, 3

-- Whether a task runs: the copy of core/triggers.py (a test holds the two equal). RUN, WAIT, or NEVER, how it ends, and why.
local function decide_trigger(rule, succeeded, failed, canceled, pending)
  if succeeded + failed + canceled + pending == 0 then return RUN end
  if rule == ALL_SUCCESS then
    if failed > 0 then return NEVER, FAILED, DEPENDENCY end
    if canceled > 0 then return NEVER, CANCELED, UPSTREAM_CANCELED end
  elseif rule == NONE_FAILED then
    if failed > 0 then return NEVER, FAILED, DEPENDENCY end
  elseif rule == ONE_SUCCESS then
    if succeeded > 0 then return RUN end
    if pending == 0 then
      if failed > 0 then return NEVER, FAILED, DEPENDENCY end
      return NEVER, CANCELED, NOT_TRIGGERED
    end
  elseif rule == ONE_FAILED then
    if failed > 0 then return RUN end
    if pending == 0 then return NEVER, CANCELED, NOT_TRIGGERED end
  end
  return pending > 0 and WAIT or RUN
end
