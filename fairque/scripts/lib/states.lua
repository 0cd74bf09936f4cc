-- EXPORTS STATE_NAMES TRANSITIONS
-- The states and their transitions: the copy of core/states.py (a test holds the two equal).
local QUEUED, STARTED, DEFERRED, SCHEDULED, FINISHED, FAILED, CANCELED = 1, 2, 3, 4, 5, 6, 7
local STATE_NAMES = {'queued', 'started', 'deferred', 'scheduled', 'finished', 'failed', 'canceled'}
local TRANSITIONS = {
  [QUEUED] = {[STARTED] = true, [SCHEDULED] = true, [FAILED] = true, [CANCELED] = true},
  [STARTED] = {[FINISHED] = true, [QUEUED] = true, [DEFERRED] = true, [SCHEDULED] = true, [FAILED] = true, [CANCELED] = true},
  [DEFERRED] = {[QUEUED] = true, [SCHEDULED] = true, [FAILED] = true, [CANCELED] = true},
  [SCHEDULED] = {[QUEUED] = true, [FAILED] = true, [CANCELED] = true},
  [FINISHED] = {},
  [FAILED] = {[QUEUED] = true, [DEFERRED] = true},
  [CANCELED] = {[QUEUED] = true, [DEFERRED] = true},
}
