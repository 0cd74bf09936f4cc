-- dead_news: what has died since somebody asked: each is told once
-- KEYS  clock
-- ARGV  prefix settings limit
-- FLAGS allow-oom
-- INCLUDE prelude keys
-- REPLY packed, for each: id, user, function, reason, attempt, when (µs), how many dead letters the user had then, and 1 if
-- it passed `dead_letter_alert` with this one
return call('LPOP', keys.dead_news, tonumber(limit)) or {}
