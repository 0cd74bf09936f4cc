"""Ending a Python function that runs in another thread: best effort.

CPython raises an exception in a thread at that thread's next bytecode. Code that sits in a system call or in
C sees it when it comes back, and may catch it like any exception. So nothing may rely on it: whoever
interrupts goes on counting the thread as busy until the function has returned.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

from fairque.core.exceptions import TaskTimeoutError


def interruption(thread_id: int | None = None) -> Callable[[bool], None]:
    """A function that raises TaskTimeoutError in the thread (default: this one), and, called with False,
    takes back what was not raised yet."""
    target = ctypes.c_ulong(threading.get_ident() if thread_id is None else thread_id)
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def interrupt(wanted: bool) -> None:
        set_exception(target, ctypes.py_object(TaskTimeoutError) if wanted else None)

    return interrupt
