-- INCLUDE prelude keys
-- EXPORTS record
-- BEGIN record.begin()
-- The packed task record, as in core/record.py. A record is read whole or head only; what is written back is the
-- head: names and body never change. The head grows once, by the claim, when the task is first claimed.
local HEAD = '>BBBBHHHHBBHHBBI4dddd'
local CLAIM = '>dc16c11'
local WAITING, CLAIMED = 1, 2
local WAITING_SIZE, CLAIMED_SIZE = 56, 91
local HEAD_AND_NAMES = 1122
local NO_TOKEN = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
local NO_HOLDER = '-----------'
local CANCEL, LANE, LONE, WATCHED, UNKNOWN, ERRORS, UNDER_LIMITER, LINKED = 1, 2, 4, 8, 16, 32, 64, 128
local EXPIRED, BY_CALLER, NO_RETRIES, GAVE_UP, CRASHED, NOBODY, DISCARDED, MOVED, DEPENDENCY, INVALID =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local UPSTREAM_CANCELED, NOT_TRIGGERED, UPSTREAM_GONE = 11, 12, 13
local POOL = 2000
local record = {}

-- Tables are used again from call to call: to make one, with so many fields, takes longer than to fill it.
local pool, used = {}, 0

function record.begin()
  -- What the last call read is not kept.
  for i = 1, math.min(used, POOL) do pool[i].data = nil end
  used = 0
end

local function blank()
  used = used + 1
  if used > POOL then return {} end
  local rec = pool[used]
  if not rec then
    rec = {}
    pool[used] = rec
  end
  rec.under = nil
  return rec
end

function record.parse(data)
  local version = string.byte(data)
  if not (version == WAITING and #data >= WAITING_SIZE or version == CLAIMED and #data >= CLAIMED_SIZE) then return nil end
  local rec = blank()
  rec.size, rec.charged, rec.token, rec.holder = WAITING_SIZE, 0, NO_TOKEN, NO_HOLDER
  version, rec.state, rec.priority, rec.flags, rec.attempt, rec.retries, rec.max_retries, rec.run, rec.crashes,
    rec.reason, rec.user_size, rec.function_size, rec.op_size, rec.dedup_size, rec.cost, rec.created, rec.enqueued,
    rec.entered, rec.expires = struct.unpack(HEAD, data)
  if version == CLAIMED then
    rec.size = CLAIMED_SIZE
    rec.charged, rec.token, rec.holder = struct.unpack(CLAIM, data, WAITING_SIZE + 1)
  end
  local at = rec.size + rec.user_size
  rec.user = string.sub(data, rec.size + 1, at)
  rec.func = string.sub(data, at + 1, at + rec.function_size)
  rec.rest = at + rec.function_size
  rec.data = data
  return rec
end

function record.op(rec)
  return string.sub(rec.data, rec.rest + 1, rec.rest + rec.op_size)
end

function record.dedup(rec)
  local at = rec.rest + rec.op_size
  return string.sub(rec.data, at + 1, at + rec.dedup_size)
end

-- The name of its limiter, which stands behind its length, or nil.
function record.limiter(rec)
  if rec.flags == 0 or bit.band(rec.flags, UNDER_LIMITER) == 0 then return nil end
  if not rec.under then
    local at = rec.rest + rec.op_size + rec.dedup_size + 1
    rec.under = string.sub(rec.data, at + 1, at + string.byte(rec.data, at))
  end
  return rec.under
end

-- How many bytes stand before the body, of one that was loaded whole.
function record.body_at(rec)
  local limiter = record.limiter(rec)
  return rec.rest + rec.op_size + rec.dedup_size + (limiter and 1 + #limiter or 0)
end

local function head(rec, version)
  local packed = struct.pack(HEAD, version, rec.state, rec.priority, rec.flags, rec.attempt, rec.retries, rec.max_retries, rec.run,
    rec.crashes, rec.reason, rec.user_size, rec.function_size, rec.op_size, rec.dedup_size, rec.cost, rec.created,
    rec.enqueued, rec.entered, rec.expires)
  if version == WAITING then return packed end
  return packed .. struct.pack(CLAIM, rec.charged, rec.token, rec.holder)
end

-- The head of a task, or nil if there is none or it is not a record.
function record.load(id)
  local data = call('GETRANGE', keys.task(id), 0, HEAD_AND_NAMES - 1)
  if data == '' then return nil end
  return record.parse(data)
end

-- The whole record, for those who deliver it.
function record.load_whole(id)
  local data = call('GET', keys.task(id))
  if not data then return nil end
  return record.parse(data)
end

local function version_of(rec)
  return rec.size == CLAIMED_SIZE and CLAIMED or WAITING
end

function record.save(id, rec)
  call('SETRANGE', keys.task(id), 0, head(rec, version_of(rec)))
end

-- The bytes of a task that is claimed, which was loaded whole: the first time, its head grows.
function record.claimed(rec)
  rec.data = head(rec, CLAIMED) .. string.sub(rec.data, rec.size + 1)
  rec.size, rec.rest = CLAIMED_SIZE, rec.rest + CLAIMED_SIZE - rec.size
  return rec.data
end

-- The record as it is now, of one that was loaded whole.
function record.whole(rec)
  return head(rec, version_of(rec)) .. string.sub(rec.data, rec.size + 1)
end

function record.has(rec, flag)
  return rec.flags ~= 0 and bit.band(rec.flags, flag) ~= 0
end

function record.mark(rec, flag)
  rec.flags = bit.bor(rec.flags, flag)
end

function record.unmark(rec, flag)
  if rec.flags == 0 then return end
  rec.flags = bit.band(rec.flags, bit.bnot(flag))
end
