-- xcom_list: a page of the keys of a namespace, those that expire first before the others
-- KEYS  clock
-- ARGV  prefix settings user namespace start count
-- FLAGS no-writes
-- INCLUDE prelude keys clock
-- REPLY keys
return call('ZRANGEBYSCORE', keys.xcoms(user, namespace), string.format('%.17g', clock.now), '+inf', 'LIMIT', start, count)
