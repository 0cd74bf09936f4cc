-- settle_and_claim: started -> finished | queued | scheduled | failed | canceled, then queued -> started
-- KEYS  clock
-- ARGV  prefix settings incarnation sequence random want park digest users outcomes
-- FLAGS allow-oom
-- INCLUDE prelude states record clock tenants scheduler assigned tasks stats writes wake leases settle sweep holdings mend reconcile deps continue finish_call
-- `want`: how many tasks at most. `park`: 1 if the caller will block on its wake list should it get less, plus 4 if only
-- should it get none, plus 2 if others of its incarnation block there already.
-- `digest`: of the tokens that the caller holds before this claim, or ''. `users`: whom to serve, packed, or '' for all.
-- `outcomes`: packed, for each: its kind (number), the lengths of id and `first`, seconds, `second`, the token, then id
-- and `first` (lib/settle.lua says what these are).
-- REPLY 1 if this is the stored answer to a call that was made before, codes of the outcomes, claimed tasks (id,
-- record), when the caller should call again (µs, or 0), ids to cancel, what it holds if the digest differs (id, record),
-- news of the dead (lib/sweep.lua).
-- ERRORS FQ_DEAD the incarnation is not alive; FQ_CALL the number is lower than the last
local NOTHING_HELD = 'da39a3ee5e6b4b0d3255bfef95601890afd80709' -- the digest of no tokens
local deadline = leases.require(incarnation)
local number = tonumber(sequence)
local last = call('HMGET', keys.worker(incarnation), 'sequence', 'answer', 'due', 'entry', 'parked')
local deliveries, codes = {}, {}

local function deliver(list, id, rec)
  list[#list + 1] = id
  list[#list + 1] = record.whole(rec)
end

-- The same number gets the same answer: codes as stored, and the claims that still stand.
if last[1] and tonumber(last[1]) >= number then
  if tonumber(last[1]) > number then refuse('CALL', sequence .. ' ' .. last[1]) end
  -- Who asks again lives, however many answers are lost.
  leases.touch(incarnation, deadline)
  local answer = cmsgpack.unpack(last[2])
  for i = 1, #answer[2], 2 do
    local rec = record.load_whole(answer[2][i])
    if rec and rec.state == STARTED and rec.token == answer[2][i + 1] then deliver(deliveries, answer[2][i], rec) end
  end
  return {1, answer[1], deliveries, tostring(0), {}, {}, {}}
end

scheduler.advance()
leases.touch(incarnation, deadline)
writes.for_holder(incarnation)
local seen, touched = {}, {}
local news = {}
local at = 1
while at <= #outcomes do
  local kind, id_size, first_size, seconds, second, token, names = struct.unpack('>BHI4ddc16', outcomes, at)
  local first_at = names + id_size
  local id = string.sub(outcomes, names, first_at - 1)
  at = first_at + first_size
  if seen[id] then writes.flush() end
  seen[id] = true
  local code, t = settle.one(incarnation, id, token, settle.KINDS[kind], seconds, string.sub(outcomes, first_at, at - 1),
    second)
  codes[#codes + 1] = code
  if t and not touched[t] then
    touched[t] = true
    touched[#touched + 1] = t
  end
end
if #codes > 0 then
  scheduler.place_all(touched)
  if tasks.ended then deps.resolve() end
  writes.flush()
end
if clock.continuing > 0 then
  continue.go_on()
  writes.flush()
end
if clock.now - clock.swept > conf.lease / 12 then
  reconcile.sweep()
  news = sweep.reap()
  sweep.expire()
  continue.sweep()
  writes.flush()
  call('ZREMRANGEBYSCORE', keys.functions, '-inf', clock.now - conf.unknown * 10)
  sweep.forget(100)
elseif #codes > 0 then
  -- As fast as they come, or they would pile up.
  sweep.forget(2 * #codes)
end
sweep.promote()
scheduler.unpark()
if clock.renewing > 0 then scheduler.renew(100) end
if want ~= '0' then sweep.take_back(incarnation) end

-- What the caller and the server think that it holds.
local cancels, held_by_server = {}, {}
if digest ~= '' then
  call('ZADD', keys.workers, clock.now + conf.lease, incarnation)
  local held = call('HGETALL', keys.held(incarnation))
  if not held[1] and digest ~= NOTHING_HELD and not holdings.agree() then
    -- What it holds was lost here, so that it would drop it, and run it again.
    mend.write_all()
    reconcile.claims()
    stats.add('reconciled')
    held = call('HGETALL', keys.held(incarnation))
  end
  local tokens = {}
  for i = 1, #held, 2 do
    tokens[#tokens + 1] = string.sub(held[i + 1], 1, 16)
    if string.sub(held[i + 1], 17, 17) == '1' then cancels[#cancels + 1] = held[i] end
  end
  table.sort(tokens)
  if redis.sha1hex(table.concat(tokens)) ~= digest then
    stats.add('digest_mismatches')
    for i = 1, #held, 2 do
      local rec = record.load_whole(held[i])
      if rec and rec.state == STARTED and rec.token == string.sub(held[i + 1], 1, 16) then
        deliver(held_by_server, held[i], rec)
      else
        leases.drop_orphan(incarnation, held[i])
      end
    end
    held_by_server[#held_by_server + 1] = ''
  end
  if conf.by_time then
    -- Long tasks are charged for what they have run beyond the charge.
    for i = 1, #held, 2 do
      local rec = record.load(held[i])
      local run = rec and rec.state == STARTED and (clock.now - rec.entered) / 1000000 or 0
      if rec and run > rec.charged then
        local t = tenants.get(rec.user)
        scheduler.charge(t, run - rec.charged)
        rec.charged = run
        record.save(held[i], rec)
        scheduler.place(t)
      end
    end
  end
end

-- One decision at a time: a claim of n makes the decisions that n claims of one would make.
local got, wanted, spent, bytes = 0, tonumber(want), 0, 0
local claimed = {}
local only = users ~= '' and cmsgpack.unpack(users) or nil
local sides = assigned.sides(last[4] or '')
if clock.assigned > 0 then assigned.grow_late(tenants.get) end

-- queued -> started, for the tenant's next task. False if what was there cannot start.
local function start_one(t, by_lane)
  local root = t.group or t
  if not (t.ready and root.ready) or t.inner or (by_lane and not root.sparse) then
    mend.misplaced(t, sides)
    return false
  end
  local id, data = tasks.pop(t)
  local rec
  if data then rec = record.parse(data) elseif id then rec = record.load_whole(id) end
  if not rec or rec.state ~= QUEUED then
    scheduler.place(t)
    return false
  end
  if rec.expires > 0 and rec.expires <= clock.now then
    tasks.conclude(id, rec, CANCELED, EXPIRED, conf.result_ttl)
    scheduler.place(t)
    return false
  end
  rec.charged = scheduler.start(t, rec, by_lane, sides)
  clock.tokens = clock.tokens + 1
  rec.token = struct.pack('>I8', clock.tokens) .. random
  rec.holder, rec.attempt = incarnation, rec.attempt + 1
  record.unmark(rec, UNKNOWN)
  if by_lane then record.mark(rec, LANE) else record.unmark(rec, LANE) end
  tasks.move(id, rec, STARTED, clock.now)
  writes.record(keys.task(id), record.claimed(rec))
  leases.hold(incarnation, id, rec)
  deliveries[#deliveries + 1] = id
  deliveries[#deliveries + 1] = rec.data
  bytes = bytes + #rec.data
  claimed[#claimed + 1] = id
  claimed[#claimed + 1] = rec.token
  return true
end

-- A thousand decisions, each for another user, would hold the server up for longer than 50 ms.
while clock.paused == 0 and got < wanted and spent < 300 and bytes < 4194304 do
  local t, by_lane = scheduler.choose(only, sides)
  if not t then break end
  spent = spent + 1
  if start_one(t, by_lane) then got = got + 1 end
end
clock.claimed = clock.claimed + got

local parking = tonumber(park)
local waits = parking % 2 == 1 and got < wanted and (parking < 4 or got == 0)
local parked = waits or bit.band(parking, 2) ~= 0
if parked then
  wake.park(incarnation)
elseif last[5] == '1' then
  wake.unpark(incarnation)
end

-- When to look again without being woken. One idle worker promises each due time, so that a hundred do not all wake;
-- it keeps its promise while it waits.
local due = 0
writes.flush()
local next_due = wake.next_due()
if next_due == math.huge then
  clock.timer = 0
elseif waits then
  if clock.timer == 0 or clock.timer == tonumber(last[3]) or next_due < clock.timer or clock.timer < clock.now - 100000 then
    clock.timer, due = next_due, next_due
  end
else
  wake.hand_on(last[3])
  -- Nobody waits for what is due first: an idle worker shall.
  if clock.timer == 0 or next_due < clock.timer or clock.timer < clock.now - 100000 then
    clock.timer = 0
    wake.one()
  end
end
wake.one_if_ready()
call('HSET', keys.worker(incarnation), 'sequence', sequence, 'answer', cmsgpack.pack({codes, claimed}), 'due',
  string.format('%.17g', due), 'parked', parked and '1' or '0')
finish_call()
return {0, codes, deliveries, string.format('%.17g', due > 0 and math.max(1, due - clock.now) or 0), cancels, held_by_server, news}
