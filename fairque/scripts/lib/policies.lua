-- INCLUDE prelude keys clock
-- EXPORTS policies
-- BEGIN policies.begin()
-- What tenants may use, as it was set: by user, else by the first rule whose pattern fits; of organisations by name.
-- A policy is a packed map (queue/operations/policies.py); what it does not name is not limited.
local NOTHING = {}
local policies = {}
local read_rules, packed_rules
local rules_have_budget = false

function policies.begin()
  policies.rules = nil
end

local function decoded(user)
  return (string.gsub(user, '%%(%x%x)', function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Unpacked again only if they have changed.
local function rules()
  if policies.rules then return policies.rules end
  local packed = call('GET', keys.rules) or ''
  if packed ~= packed_rules then
    packed_rules, read_rules = packed, packed ~= '' and cmsgpack.unpack(packed) or {}
    rules_have_budget = false
    for _, rule in ipairs(read_rules) do
      if rule[2].retry_budget then rules_have_budget = true end
    end
  end
  policies.rules = read_rules
  return read_rules
end

local function rule_for(name)
  for _, rule in ipairs(rules()) do
    if string.match(name, rule[1]) then return rule[2] end
  end
end

local function paused_copy(fields)
  local copy = {}
  for name, value in pairs(fields) do copy[name] = value end
  copy.paused = true
  return copy
end

-- `inherits`: a pause on top of what the rules say.
function policies.of(user)
  local packed = call('HGET', keys.policies, user)
  local own = packed and cmsgpack.unpack(packed)
  if own and not own.inherits then return own end
  local fields = clock.rules > 0 and rule_for(decoded(user)) or NOTHING
  return own and paused_copy(fields) or fields
end

-- What of a user's starts may be retries, and how many of them a second always may; nothing if all may. A retry asks:
-- the rules are not tried one by one if none of them says anything of it.
function policies.retry_budget(user)
  local packed = call('HGET', keys.policies, user)
  local own = packed and cmsgpack.unpack(packed)
  local fields = own
  if not own or own.inherits then
    fields = clock.rules > 0 and rules() and rules_have_budget and rule_for(decoded(user)) or NOTHING
  end
  return fields.retry_budget, fields.retry_minimum
end

function policies.of_group(name)
  local packed = call('HGET', keys.groups, name)
  return packed and cmsgpack.unpack(packed) or NOTHING
end

function policies.of_limiter(name)
  local packed = call('HGET', keys.limiters, name)
  return packed and cmsgpack.unpack(packed) or NOTHING
end

-- µs for each unit of cost, and how far ahead of that a burst may run.
function policies.pace(fields)
  if not fields.rate_limit then return 0, 0 end
  local interval = 1000000 / fields.rate_limit
  return interval, (fields.burst - 1) * interval
end
