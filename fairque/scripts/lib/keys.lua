-- EXPORTS keys name_keys
-- BEGIN name_keys(prefix)
-- Every key name, as in core/keys.py (a test holds the two equal). Parts arrive percent-encoded.
local keys = {}
local prefix

-- Queues with other prefixes may call in between. `prefix` says whose the names are: nobody's while they are made.
local function name_keys(given)
  if given == prefix then return end
  prefix = nil
  keys.clock = given .. ':clock'
  keys.ready_all = given .. ':ready:all'
  keys.ready_sparse = given .. ':ready:sparse'
  keys.ahead = given .. ':ahead'
  keys.policies = given .. ':policies'
  keys.estimates = given .. ':estimates'
  keys.expiring = given .. ':expiring'
  keys.functions = given .. ':functions'
  keys.passed = given .. ':passed'
  keys.workers = given .. ':workers'
  keys.dead = given .. ':workers:dead'
  keys.waiters = given .. ':waiters'
  keys.stats = given .. ':stats'
  keys.meta = given .. ':meta'
  keys.groups = given .. ':groups'
  keys.limiters = given .. ':limiters'
  keys.rules = given .. ':rules'
  keys.users = given .. ':users'
  keys.by_backlog = given .. ':users:backlog'
  keys.by_service = given .. ':users:service'
  keys.by_wait = given .. ':users:wait'
  keys.by_dead = given .. ':users:dead'
  keys.dead_news = given .. ':news:dead'
  keys.cleanup = given .. ':cleanup'
  keys.parked = given .. ':parked'
  keys.holders = given .. ':holders'
  keys.fresh = given .. ':fresh'
  keys.assign = given .. ':assign'
  keys.entries = given .. ':assign:entries'
  keys.schedules = given .. ':schedules'
  keys.schedules_due = given .. ':schedules:due'
  keys.leader = given .. ':scheduler:leader'
  keys.missing = given .. ':deps:missing'
  keys.continued = given .. ':deps:continue'
  keys.workflows = given .. ':workflows'
  prefix = given
end

function keys.task(id) return prefix .. ':task:' .. id end
function keys.result(id) return prefix .. ':result:' .. id end
function keys.errors(id) return prefix .. ':errors:' .. id end
function keys.progress(id) return prefix .. ':progress:' .. id end
function keys.watchers(id) return prefix .. ':watchers:' .. id end
function keys.state(name) return prefix .. ':state:' .. name end
function keys.critical(user) return prefix .. ':queue:user:' .. user .. ':critical' end
function keys.normal(user) return prefix .. ':queue:user:' .. user .. ':normal' end
function keys.user(user) return prefix .. ':user:' .. user end
function keys.costs(user) return prefix .. ':user:' .. user .. ':costs' end
function keys.retries(user) return prefix .. ':user:' .. user .. ':retries' end
function keys.dlq(user) return prefix .. ':dlq:' .. user end
function keys.dedup(user, key) return prefix .. ':dedup:' .. user .. ':' .. key end
function keys.worker(incarnation) return prefix .. ':worker:' .. incarnation end
function keys.held(incarnation) return prefix .. ':worker:' .. incarnation .. ':tasks' end
function keys.wake(incarnation) return prefix .. ':wake:' .. incarnation end
function keys.limited(user, limiter) return prefix .. ':queue:user:' .. user .. ':limited:' .. limiter end
function keys.limiters_of(user) return prefix .. ':user:' .. user .. ':limiters' end
function keys.limiter(name) return prefix .. ':limiter:' .. name end
function keys.limiter_tags(name) return prefix .. ':limiter:' .. name .. ':tags' end
function keys.blocked(name) return prefix .. ':limiter:' .. name .. ':blocked' end
function keys.ready_in(group) return prefix .. ':ready:' .. group end
function keys.ahead_in(group) return prefix .. ':ahead:' .. group end
function keys.downstream(id) return prefix .. ':deps:waiting:' .. id end
function keys.upstream(id) return prefix .. ':deps:blocked:' .. id end
function keys.workflow(id) return prefix .. ':workflow:' .. id end
function keys.nodes(id) return prefix .. ':workflow:' .. id .. ':nodes' end
function keys.stage(id) return prefix .. ':workflow:' .. id .. ':stage' end
function keys.xcom(user, namespace, key) return prefix .. ':xcom:' .. user .. ':' .. namespace .. ':' .. key end
function keys.xcoms(user, namespace) return prefix .. ':xcom:' .. user .. ':' .. namespace end
function keys.words(group) return prefix .. ':user:' .. group .. ':words' end
function keys.members(group, word) return prefix .. ':ready:for:' .. group .. ':' .. word end
function keys.assignment(number) return prefix .. ':assigned:' .. number end
function keys.waiting(schedule) return prefix .. ':schedules:waiting:' .. schedule end
function keys.history(schedule) return prefix .. ':schedules:history:' .. schedule end
