-- reconcile: what is stored twice is compared and mended, in bounded steps
-- KEYS  clock
-- ARGV  prefix settings step cursor
-- FLAGS allow-oom
-- INCLUDE prelude clock scheduler repairs steps wake finish_call
-- `step`: broken (what is no queue any more, of users), tasks (all that are stored), a state's name (its registry),
-- claims (at once: what workers hold says what runs), limiters, groups, users, placing (users of levels that have begun
-- anew for it), sums (what organisations count of their members), or count (an organisation against its members, packed
-- in `cursor`: the one, then the others). `cursor`: 0, then that of the page before.
-- REPLY next cursor ('' at the end), how many were looked at, repairs (whose, what of it, what it was and is), and a list:
-- of users, the members on this page (organisation, user, queued, delayed); of sums, organisations (itself, '', queued,
-- delayed)
scheduler.advance()
local following, list = steps.take(step, cursor)
wake.one_if_ready()
finish_call()
return {(following == '0' or following == '-1') and '' or following, repairs.looked, repairs.list, list}
