-- INCLUDE prelude keys
-- EXPORTS record
-- The packed task record, as in core/record.py. A record is read whole or head only; what is written back is the
-- fixed header: names and body never change.
local HEAD = '>BBBBHHHHBBHHBBI4dddddc16c11'
local HEAD_SIZE = 91
local HEAD_AND_NAMES = 866
local NO_TOKEN = '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
local NO_HOLDER = '-----------'
local CANCEL, LANE, LONE, WATCHED, UNKNOWN, ERRORS = 1, 2, 4, 8, 16, 32
local EXPIRED, BY_CALLER, NO_RETRIES, GAVE_UP, CRASHED, NOBODY, DISCARDED, MOVED, DEPENDENCY, INVALID =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local record = {}

function record.parse(data)
  if #data < HEAD_SIZE or string.byte(data) ~= 1 then return nil end
  local rec = {}
  local version
  version, rec.state, rec.priority, rec.flags, rec.attempt, rec.retries, rec.max_retries, rec.run, rec.crashes,
    rec.reason, rec.user_size, rec.function_size, rec.op_size, rec.dedup_size, rec.cost, rec.created, rec.enqueued,
    rec.entered, rec.expires, rec.charged, rec.token, rec.holder = struct.unpack(HEAD, data)
  local at = HEAD_SIZE + rec.user_size
  rec.user = string.sub(data, HEAD_SIZE + 1, at)
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

function record.head(rec)
  return struct.pack(HEAD, 1, rec.state, rec.priority, rec.flags, rec.attempt, rec.retries, rec.max_retries, rec.run,
    rec.crashes, rec.reason, rec.user_size, rec.function_size, rec.op_size, rec.dedup_size, rec.cost, rec.created,
    rec.enqueued, rec.entered, rec.expires, rec.charged, rec.token, rec.holder)
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

function record.save(id, rec)
  call('SETRANGE', keys.task(id), 0, record.head(rec))
end

-- The record as it is now, of one that was loaded whole.
function record.whole(rec)
  return record.head(rec) .. string.sub(rec.data, HEAD_SIZE + 1)
end

function record.has(rec, flag)
  return bit.band(rec.flags, flag) ~= 0
end

function record.mark(rec, flag)
  rec.flags = bit.bor(rec.flags, flag)
end

function record.unmark(rec, flag)
  rec.flags = bit.band(rec.flags, bit.bnot(flag))
end
