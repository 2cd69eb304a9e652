"""What stands around the workers of a chaos run: a supervisor that starts them again, and a watch over what is committed.

Threads, because the run itself sleeps and kills. Not here: what is done to the workers, and the oracle (chaos).
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import Counter
from pathlib import Path

from deployment import Deployment, WorkerProcess, backlog

from streams.broker import administering
from streams.shell import EXIT_BUG, EXIT_RETRY

POLL_S = 0.25


class Supervisor:
    """Keeps named workers running: what ends is noted and started again, as systemd or Kubernetes would."""

    def __init__(self, deployment: Deployment) -> None:
        self.exits: Counter[int] = Counter()
        """Exit codes that nobody asked for."""
        self.failures: list[str] = []
        self._deployment = deployment
        self._running: dict[str, WorkerProcess] = {}
        self._frozen: set[str] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tend, daemon=True)
        self._thread.start()

    def start(self, name: str) -> None:
        """Start a worker, from now on to be kept running."""
        with self._lock:
            self._running[name] = self._deployment.worker(name)

    def names(self) -> list[str]:
        """Return the workers that can be disturbed: those that run and are not frozen."""
        with self._lock:
            return sorted(self._running.keys() - self._frozen)

    def kill(self, name: str, wiped: bool) -> None:
        """SIGKILL a worker, lose its data directory if told so, and start it again."""
        with self._lock:
            self._running[name].kill()
            if wiped:
                self._running[name].wipe()
            self._running[name] = self._deployment.worker(name)

    def retire(self, name: str) -> None:
        """SIGTERM a worker, which must end with code 0 unless it had not even begun, and let it rest."""
        with self._lock:
            worker = self._running.pop(name)
        code = worker.terminate()
        if code and (code != -signal.SIGTERM or worker.said()):
            self.failures.append(f"{name} ended with {code} on SIGTERM: {_last_words(worker)}")

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP a worker for `seconds`; what it does when it wakes up is its own affair."""
        with self._lock:
            worker = self._running[name]
            self._frozen.add(name)
            worker.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        with self._lock:
            worker.process.send_signal(signal.SIGCONT)
            self._frozen.discard(name)

    def stop(self) -> None:
        """Retire everybody."""
        self._over.set()
        self._thread.join()
        for name in list(self._running):
            self.retire(name)

    def _tend(self) -> None:
        while not self._over.wait(0.05):
            with self._lock:
                for name, worker in self._running.items():
                    if (code := worker.process.poll()) is None:
                        continue
                    self.exits[code] += 1
                    if code not in (EXIT_BUG, EXIT_RETRY):
                        self.failures.append(f"{name} ended with {code}: {_last_words(worker)}")
                    self._running[name] = self._deployment.worker(name)


def _last_words(worker: WorkerProcess) -> str:
    return worker.said()[-500:]


def longest_restore_s(directory: Path) -> float:
    """Return the longest time that a worker of the run needed to restore a partition, by its own account."""
    said = (file.read_text(errors="replace") for file in directory.glob("*.log"))
    times = [float(seconds) for text in said for seconds in re.findall(r"restored \d+ records in ([\d.]+) s", text)]
    return max(times, default=0.0)


class Watch:
    """Looks at the group's committed offsets all the time: they move only with a committed transaction."""

    def __init__(self, deployment: Deployment) -> None:
        self.backlog: dict[int, int] = {}
        self.committed_at = 0.0
        """When a commit of any partition was last seen; monotonic seconds, as all times here."""
        self.moves = 0
        """Looks at which some partition had moved."""
        self.error: BaseException | None = None
        self._deployment = deployment
        self._positions: dict[int, int] = {}
        self._waiting_since: dict[int, float] = {}
        self._stall_s: dict[int, float] = {}
        self._from = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def measure_from_now(self) -> None:
        """Forget the stalls so far."""
        self._from = time.monotonic()
        self._stall_s = {}

    @property
    def longest_stall_s(self) -> float:
        """Longest time since `measure_from_now` that a partition with a backlog went without a commit."""
        return max(self._stall_s.values(), default=0.0)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _look(self) -> None:
        try:
            with administering(self._deployment.settings) as admin:
                while not self._over.wait(POLL_S):
                    positions = self._deployment.positions(admin)
                    left = backlog(positions, self._deployment.ends(admin))
                    reached: dict[int, int] = {}
                    for place, position in positions.items():
                        reached[place.partition] = reached.get(place.partition, 0) + position
                    self._note(reached, left, time.monotonic())
        except Exception as error:
            self.error = error

    def _note(self, reached: dict[int, int], left: dict[int, int], now: float) -> None:
        moved = False
        for partition, waiting in left.items():
            position = reached.get(partition, 0)
            since = self._waiting_since.setdefault(partition, now)
            if position != self._positions.get(partition, 0) or not waiting:
                moved |= position != self._positions.get(partition, 0)
                self._waiting_since[partition] = now
                self._positions[partition] = position
            stall = now - max(since, self._from)
            if waiting or moved:
                self._stall_s[partition] = max(self._stall_s.get(partition, 0.0), stall)
        self.backlog = left
        if moved:
            self.committed_at = now
            self.moves += 1
