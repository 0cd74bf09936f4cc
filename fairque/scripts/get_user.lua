-- get_user: a tenant's queues, counters and place
-- KEYS  clock
-- ARGV  prefix settings user
-- FLAGS no-writes
-- INCLUDE prelude keys
-- REPLY critical, normal (queue lengths), packed state, policy, dead letters
return {call('LLEN', keys.critical(user)), call('ZCARD', keys.normal(user)), call('GET', keys.user(user)) or '',
  call('HGET', keys.policies, user) or '', call('ZCARD', keys.dlq(user))}
