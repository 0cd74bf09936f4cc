"""One thread that notices when a deadline has passed.

It sleeps until the earliest deadline that it knew when it last looked, and then looks at all of them. So a
task that ends in time, which is nearly all of them, costs a comparison and no wake-up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Watchdog:
    """Calls `look(now)` when the earliest expected deadline has passed. The first deadline starts the thread.

    `look` gets the monotonic time, acts on what is past it, and answers with the next deadline (None: there
    is none).
    """

    def __init__(
        self, look: Callable[[float], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._wake = threading.Condition(threading.Lock())
        self._next: float | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def expect(self, deadline: float) -> None:
        """Look at `deadline` (monotonic seconds) at the latest. The deadline must be visible to `look`
        before."""
        # Read without the lock: whoever still sees the old value has stored its deadline before `_next` was
        # cleared and so before `look`, which then finds it.
        known = self._next
        if known is not None and known <= deadline:
            return
        with self._wake:
            if self._next is None or deadline < self._next:
                self._next = deadline
                self._wake.notify()
                if self._thread is None and not self._stopped:
                    self._thread = threading.Thread(target=self._run, name="fairque-watchdog", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while self._sleep():
            try:
                following = self._look(self._clock())
            except Exception:  # noqa: BLE001 - without it no task would ever time out again
                _log.exception("looking for tasks past their deadline failed")
                following = self._clock() + 1.0
            if following is not None:
                self.expect(following)

    def _sleep(self) -> bool:
        """Wait until it is time to look; False when stopped."""
        with self._wake:
            while not self._stopped:
                wait = None if self._next is None else self._next - self._clock()
                if wait is not None and wait <= 0:
                    self._next = None
                    return True
                self._wake.wait(wait)
            return False
