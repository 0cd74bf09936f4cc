-- EXPORTS keys
-- Every key name, as in core/keys.py (a test holds the two equal). Parts arrive percent-encoded.
local keys = {
  clock = prefix .. ':clock',
  ready_all = prefix .. ':ready:all',
  ready_sparse = prefix .. ':ready:sparse',
  ahead = prefix .. ':ahead',
  policies = prefix .. ':policies',
  estimates = prefix .. ':estimates',
  expiring = prefix .. ':expiring',
  functions = prefix .. ':functions',
  passed = prefix .. ':passed',
  workers = prefix .. ':workers',
  dead = prefix .. ':workers:dead',
  waiters = prefix .. ':waiters',
  stats = prefix .. ':stats',
  meta = prefix .. ':meta',
}
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
function keys.dlq(user) return prefix .. ':dlq:' .. user end
function keys.dedup(user, key) return prefix .. ':dedup:' .. user .. ':' .. key end
function keys.worker(incarnation) return prefix .. ':worker:' .. incarnation end
function keys.held(incarnation) return prefix .. ':worker:' .. incarnation .. ':tasks' end
function keys.wake(incarnation) return prefix .. ':wake:' .. incarnation end
