"""Does what the plan says, when it says so."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.support.ledger.crew import AFTERMATH_SECONDS, Crew, Harm, descendants, thaw
from tests.support.ledger.plan import LEASE, Fault
from tests.support.proxy import FaultProxy
from tests.support.servers import ServerProcess

TICK_SECONDS = 0.01
HARMLESS_SECONDS = 0.4 * LEASE
"""A stop, or a cut, that lasted longer (on a busy machine it may) can have cost a lease."""
DROPS = (1, 4, 30)
"""How many answers in a row are lost: one, some, and more than all that call now say again."""


class Hand:
    """Carries out faults in one thread; what has to end in time, ends in threads of its own."""

    def __init__(self, crew: Crew, server: ServerProcess, networks: Sequence[FaultProxy]) -> None:
        self._crew, self._server, self._networks = crew, server, networks
        self._timers: list[threading.Timer] = []
        self._server_at: float | None = None
        self._down_since = 0.0
        self.done: Counter[str] = Counter()
        self.skipped = 0
        self.weather: list[tuple[float, float]] = []
        """When the server or a network was not as it should be (monotonic seconds)."""

    def run(self, plan: Sequence[Fault], seconds: float) -> None:
        """Until `seconds` are over and nothing is stopped, cut or down any more."""
        begun = time.monotonic()
        waiting = list(plan)
        while (now := time.monotonic() - begun) < seconds:
            while waiting and waiting[0].at <= now:
                fault = waiting.pop(0)
                if self._do(fault):
                    self.done[f"{fault.what} {fault.target}"] += 1
                else:
                    self.skipped += 1
            self.look_after()
            time.sleep(TICK_SECONDS)
        self.heal()

    def look_after(self) -> None:
        """Start again what is down and shall be up."""
        if self._server_at is not None and time.monotonic() >= self._server_at:
            self._server.start()
            self._server_at = None
            self.weather.append((self._down_since, time.monotonic()))
        self._crew.look_after()

    def heal(self) -> None:
        for timer in self._timers:
            timer.join()
        for network in self._networks:
            network.heal()
        if self._server_at is not None:
            self._server_at = 0.0
        self.look_after()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, what)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _do(self, fault: Fault) -> bool:
        match fault.target, fault.what:
            case "network", _:
                return self._cut(fault, self._networks[fault.index])
            case "server", _:
                return self._shake(fault)
            case kind, "kill":
                return self._crew.kill(kind, fault.index, fault.seconds)
            case kind, "term":
                return self._crew.term(kind, fault.index, fault.seconds)
            case kind, _:
                return self._stop(kind, fault)

    def _shake(self, fault: Fault) -> bool:
        server = self._server
        if not server.running:
            return False
        if fault.what == "kill":
            self._down_since = time.monotonic()
            server.kill()
            self._server_at = time.monotonic() + fault.seconds
        elif fault.what == "nap":
            pid = server.pid
            server.freeze()
            self._later(fault.seconds, lambda: thaw((pid,)))
            self._cloud(fault.seconds)
        else:
            client = server.client()
            client.function_flush("SYNC")
            client.script_flush("SYNC")
        return True

    def _stop(self, kind: str, fault: Fault) -> bool:
        begun = time.monotonic()
        pids = self._crew.freeze(kind, fault.index)
        supervisor = kind == "supervisor"

        def go_on() -> None:
            thaw(pids)
            ended = time.monotonic()
            if not supervisor and ended - begun > HARMLESS_SECONDS:
                family = [one for pid in pids for one in (pid, *descendants(pid))]
                self._crew.harms.append(Harm("stop", frozenset(family), begun, ended + AFTERMATH_SECONDS))

        if pids:
            self._later(fault.seconds, go_on)
        return bool(pids)

    def _cloud(self, seconds: float) -> None:
        now = time.monotonic()
        self.weather.append((now, now + seconds))

    def _cut(self, fault: Fault, network: FaultProxy) -> bool:
        self._cloud(fault.seconds)
        match fault.what:
            case "drop":
                network.drop_replies(DROPS[round(fault.at * 1000) % len(DROPS)], matching=b"FCALL")
            case "reset":
                network.reset()
            case "delay":
                network.delay(0.005)
                self._later(fault.seconds, lambda: network.delay(0))
            case _:
                network.refuse()
                network.reset()
                self._later(fault.seconds, lambda: network.refuse(False))
        return True
