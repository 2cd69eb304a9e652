"""A program under measurement: started, watched, ended as an operator would; its CPU seconds from the kernel.

CPU seconds of another process come from /proc; where there is none they read as 0, and reports show a dash.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from contracts.errors import BadSettings

STOP_S_MAX = 30
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int | None) -> float:
    """Return user and system seconds that process `pid` has used, all threads; 0.0 if the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Program:
    """A command running in a process of its own, with its output in a file."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        """Start `command` in the repository's root, with `environment` on top of ours."""
        self._log = log
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).resolve().parents[1],
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def require_alive(self) -> None:
        """Raise BadSettings, with the end of its output, if the program has ended."""
        code = self._process.poll()
        if code is not None:
            tail = self._log.read_text(errors="replace")[-3_000:]
            raise BadSettings(f"The program under measurement ended with code {code}; its last words:\n{tail}")

    def stop(self) -> None:
        """End the program with SIGTERM; by force after STOP_S_MAX."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
