-- examine: what reconcile would mend, while nothing is changed
-- KEYS  clock
-- ARGV  prefix settings step cursor
-- FLAGS no-writes
-- INCLUDE prelude pretend clock scheduler repairs steps
-- `step`, `cursor`: of reconcile, but for placing. Each page is looked at as things are: what one would mend, and what
-- follows from it, may both be told.
-- REPLY as of reconcile
pretend()
scheduler.advance()
local following, list = steps.take(step, cursor)
return {(following == '0' or following == '-1') and '' or following, repairs.looked, repairs.list, list}
