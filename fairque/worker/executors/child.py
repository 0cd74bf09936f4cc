"""One child process, seen from the worker: spawned, fed, watched and killed.

A child is spawned, not forked: it inherits no lock, connection or thread of the worker. It leads a session of
its own, so that it can be killed together with whatever its task has started, and a Ctrl-C in the worker's
terminal does not reach it. It shares the worker's standard output and error.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from fairque.worker.executors.ledger import Execution
from fairque.worker.executors.wire import FrameReader, Message, frame

MODULE = "fairque.worker.executors.process_child"
_READ_BYTES = 1 << 18
_ROOT = str(Path(__file__).resolve().parents[3])  # the directory in which the package lies


class Child:
    """A child process. Only the executor's thread uses it."""

    def __init__(self, init: dict[str, object]) -> None:
        """Spawn it. Raises OSError when the system has no process left to give.

        The thread that does this must outlive the child: on Linux the child is killed when that thread ends.
        """
        self.born = time.monotonic()
        self.ready = False  # it has said that it can take tasks
        self.busy = False  # it has a task, or is still in the hooks after one
        self.spent = False  # it shall leave after what it does
        self.leaving = False  # it was told to
        self.execution: Execution | None = None  # what it runs and has not answered for
        self.told_cancel = False
        self.tasks = 0
        self.idle_since = self.born
        self.kill_at: float | None = None
        self.kill_why = ""
        self.killed = ""  # why we killed it
        self.complaint = ""  # why it could not start
        self._reader = FrameReader()
        self._out = bytearray()
        self.connection, theirs = socket.socketpair()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=_environment(),
            )
        except BaseException:
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.connection.setblocking(False)
        self.pidfd = _pidfd(self.process.pid)
        self.send("init", init)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def free(self) -> bool:
        """Whether it can be given a task."""
        return self.ready and not self.leaving and not self.busy

    def send(self, *message: object) -> None:
        """Send a message, as much of it as does not block; `flush` sends the rest."""
        self._out += frame(*message)
        self.flush()

    def flush(self) -> None:
        """Send what is left, as much as does not block. A child that is gone is noticed by its exit, not
        here."""
        try:
            while self._out:
                del self._out[: self.connection.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def receive(self) -> list[Message]:
        """What has arrived."""
        messages: list[Message] = []
        try:
            while data := self.connection.recv(_READ_BYTES):
                messages += self._reader.feed(data)
        except BlockingIOError:
            pass
        except OSError:
            pass  # reset by a child that died with unread messages
        return messages

    def give(self, execution: Execution, message: tuple[object, ...]) -> None:
        """Give it a task."""
        self.execution = execution
        self.busy = True
        self.told_cancel = False
        self.tasks += 1
        self.send("run", *message)

    def leave(self, grace: float) -> None:
        """Tell it to run its stop hooks and go, within `grace` seconds."""
        if not self.leaving:
            self.leaving = True
            self.send("exit")
        self.kill_later(time.monotonic() + grace, "exit")

    def kill_later(self, at: float, why: str) -> None:
        """Kill it at the monotonic time `at`, unless something is to kill it before."""
        if self.kill_at is None or at < self.kill_at:
            self.kill_at, self.kill_why = at, why

    def kill(self, why: str) -> None:
        """Kill it and all that its task has started."""
        self.killed = self.killed or why
        self.leaving = True
        self.kill_at = None
        kill_group(self.pid)

    def exited(self) -> bool:
        """Whether the process has ended. It stays a zombie, so that its number is not given to another."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self.pid, options) is not None
        except ChildProcessError:
            return True

    def bury(self) -> int:
        """Kill what is left of its group and free its number and files; the exit status as
        `Popen.returncode`."""
        kill_group(self.pid)
        status = self.process.wait()
        self.connection.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
        return status


def describe_exit(pid: int, status: int) -> str:
    """What became of a process, for people."""
    if status >= 0:
        return f"its process {pid} left with exit code {status}"
    number = -status
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "a signal"
    hint = "; if nobody sent it, look for the kernel's out-of-memory killer" if name == "SIGKILL" else ""
    return f"its process {pid} was killed by {name} ({number}){hint}"


def kill_group(pid: int) -> None:
    """SIGKILL to a child and everything in its process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # gone already; macOS says "permission" for a group of zombies


def _environment() -> dict[str, str]:
    # Only to find this package; the child sets sys.path to the worker's and restores the variable.
    environment = dict(os.environ)
    paths = [_ROOT, *(entry for entry in sys.path if entry)]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None  # not Linux, or an old kernel: its exit is looked for from time to time
