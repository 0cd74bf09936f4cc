-- INCLUDE prelude keys clock
-- EXPORTS leader
-- Which scheduler decides ticks: its token, until when (µs), and its name. A token is a number that is given once.
local OFFICE = '>dd'
local OFFICE_SIZE = 16
local WAKE_SECONDS = 60
local NEWS = 'scheduler' -- whose wake list the leader blocks on, whoever it is; shorter than any incarnation
local leader = {}

-- Who leads now, with token and deadline; nil: nobody does.
function leader.get()
  local packed = call('GET', keys.leader)
  if not packed or #packed <= OFFICE_SIZE then return nil end
  local token, deadline = struct.unpack(OFFICE, packed)
  if deadline <= clock.now then return nil end
  return string.sub(packed, OFFICE_SIZE + 1), token, deadline
end

-- Kept for longer than the lease, which ends by the clock of the calls.
function leader.put(who, token, lease)
  local packed = struct.pack(OFFICE, token, clock.now + lease) .. who
  call('SET', keys.leader, packed, 'PX', math.ceil(lease / 1000) + 60000)
end

-- Refuses whoever does not lead, for example because it was asleep for longer than its lease.
function leader.require(who, token)
  local found, current = leader.get()
  if found ~= who or current ~= tonumber(token) then refuse('LEADER', who .. ' ' .. (found or '-')) end
end

-- Something is to be looked at earlier than the leader knows. One message is enough.
function leader.wake()
  local list = keys.wake(NEWS)
  if call('EXISTS', list) == 0 then
    call('RPUSH', list, 'w')
    call('EXPIRE', list, WAKE_SECONDS)
  end
end
