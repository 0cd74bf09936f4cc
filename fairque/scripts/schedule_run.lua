-- schedule_run: new -> queued | deferred: a run of a schedule outside its ticks, because somebody asks for it
-- KEYS  clock
-- ARGV  prefix settings name id record_new after tick
-- FLAGS
-- INCLUDE prelude keys record clock tenants scheduler schedules leader wake finish_call
-- `after`: the id of the run that it waits for, or ''. `tick`: µs: when it was asked for.
-- REPLY code and detail, as in push
-- ERRORS FQ_SCHEDULE there is none of this name
local entry = schedules.get(name)
if not entry then refuse('SCHEDULE', name) end
scheduler.advance()
local code, detail, repeated = schedules.run(name, id, record.parse(record_new), after)
if code == 1 and not repeated then
  entry.last = id
  schedules.save(name, entry)
  schedules.note(name, 'asked', tonumber(tick), tonumber(tick), 1, id)
  clock.pushed = clock.pushed + 1
  if call('EXISTS', keys.waiting(name)) == 1 then
    schedules.look_at(name, call('ZSCORE', keys.schedules_due, name) or NEVER)
    leader.wake()
  end
  wake.one_if_ready()
end
if code == 1 or tenants.changed then finish_call() end
return {code, detail}
