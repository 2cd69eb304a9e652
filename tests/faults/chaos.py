"""Chaos on a real Kafka: workers killed at random instants under load, and every committed record compared with an oracle.

    python tests/faults/chaos.py --seed 1 --runs 5      (make chaos SEED=1 RUNS=5)

A run has topics, a group and a log of its own. Odd seeds put the whole log into Kafka first: its merge order is fixed, so
every committed byte must equal the backtest of that log. Even seeds produce it while workers run, with a kill switch and new
list prices in between: there the applied order stands in the decisions, and every byte must equal the backtest of what
`pricetide record` captures. Two workers under a supervisor; SIGKILLs, a fifth of them with a wiped data directory; a third
worker joins and leaves; one is frozen for twice its session timeout. Half of the kills come at any instant, half soon after
a commit, so that they meet workers at work. Not here: kills at chosen steps (test_commit_boundaries).
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
import uuid
from contextlib import nullcontext
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]  # before the folders of the tests, which have the names of the rooms
sys.path.append(str(ROOT / "tests"))
# ruff: noqa: E402 - the repository must be importable first

import click
import conftest
from deployment import Deployment, broken_order, difference, expected
from msgspec import Struct
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table
from supervision import POLL_S, Supervisor, Watch, longest_restore_s

from backtest.perturb import Perturbation, perturb_log
from backtest.shoppers import generate_log
from contracts.catalogue import decode_item, encode_item, item_key
from contracts.log import catalogue_records, open_log
from contracts.policies import KillSwitch
from streams.broker import SCHEMA_HEADER, producing
from streams.kill_switch import throw_kill_switch

USERS = 1_500
PARTITIONS = 4
WIPED_SHARE = 0.2
AT_WORK_SHARE = 0.5
AT_WORK_WITHIN_S = 1.5
QUIET_S_MAX = 6.0
"""Longest pause before a kill at any instant."""
COMMIT_AWAITED_S = 12.0
PACE_S = 5.0
"""Seconds from one disturbance to the next, about: decides how long the load of a live run lasts."""
SLACK_S = 5.0
"""What the shell may need beyond session timeout and restore until a partition commits again."""
DRAINED_WITHIN_S = 180.0


class Result(Struct):
    """What came of one run."""

    seed: int
    mode: str
    prices: int = 0
    decisions: int = 0
    kills: int = 0
    at_work: int = 0
    """Kills within a second of a commit."""
    wiped: int = 0
    exits: str = ""
    restore_s: float = 0.0
    stall_s: float = 0.0
    """Longest wait of a partition with a backlog for a commit, after the last kill, join, leave or awakening."""
    allowed_s: float = 0.0
    drained_s: float = 0.0
    seconds: float = 0.0
    load: float = 0.0
    """Load average of the machine in the end."""
    failures: list[str] = []


class Run:
    """One run: `go`, once."""

    def __init__(
        self, seed: int, kafka: str, events: int, kills: int, directory: Path, pace_s: float, model: Path | None
    ) -> None:
        self._random = Random(seed)
        self._live = seed % 2 == 0
        self._result = Result(seed, "live" if self._live else "before")
        self._kills = kills
        self._pace_s = pace_s
        self._events = events
        self._directory = directory
        batch_max = self._random.choice((16, 256, 2_048) if self._live else (3, 6))  # small ones make the work last
        prefix = f"chaos-{uuid.uuid4().hex[:8]}-"
        self._models = [] if model is None else [model]
        flags = {"batch_max": batch_max} | ({} if model is None else {"encoder__model": model})
        self._deployment = Deployment(kafka, prefix, directory, PARTITIONS, **flags)
        self._session_s = self._deployment.settings.session_timeout_ms / 1000
        self._freezing: threading.Thread | None = None
        self._killed_at: list[float] = []

    def go(self) -> Result:
        """Make the log, run the workers, disturb them, compare; what is wrong stands in the result."""
        begun = time.monotonic()
        log = self._make_log()
        with self._deployment.create() as deployment:
            loading = self._load(log)
            self._supervisor, self._watch = Supervisor(deployment), Watch(deployment)
            for name in ("a", "b"):
                self._supervisor.start(name)
            self._await_commit()
            self._disturb()
            self._settle(loading)
            self._supervisor.stop()
            self._watch.stop()
        result = self._result
        result.exits = ", ".join(f"{code}: {times}" for code, times in sorted(self._supervisor.exits.items()))
        result.failures += self._supervisor.failures
        self._compare(log)
        result.seconds, result.load = time.monotonic() - begun, os.getloadavg()[0]
        return result

    # -- load ------------------------------------------------------------------------------------------------------

    def _make_log(self) -> Path:
        topology = self._deployment.topology
        plain, log = self._directory / "plain", self._directory / "log"
        generate_log(plain, USERS, self._events, self._result.seed, topology)
        perturb_log(plain, log, self._result.seed, Perturbation(erasures=0.0005))
        return log

    def _load(self, log: Path) -> threading.Thread | None:
        if not self._live:
            self._deployment.produce(log)
            return None
        seconds = 10 + self._pace_s * (self._kills + 3)
        loading = threading.Thread(target=self._deployment.produce, args=(log, seconds), daemon=True)
        loading.start()
        return loading

    def _change_prices(self) -> None:
        """Publish new list prices, which take effect at once, for a tenth of the items."""
        settings, log = self._deployment.settings, open_log(self._directory / "log", verify=False)
        with producing(settings) as producer:
            for record in catalogue_records(log):
                item = decode_item(record.value or b"")
                if self._random.random() < 0.1:
                    new = replace(item, list_price=item.list_price * 9 // 10 + 1, valid_from_ms=item.valid_from_ms + 1,
                                  cost=None, floor=None, ceiling=None, map_price=None)  # fmt: skip
                    key = item_key(new.item, new.valid_from_ms)
                    producer.send(settings.topics.catalogue, encode_item(new), key, headers=[SCHEMA_HEADER])

    # -- disturbance -----------------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        random, supervisor = self._random, self._supervisor
        acts = ["kill"] * self._kills
        for act in ("freeze", "join"):
            acts.insert(random.randrange(max(1, len(acts) // 2)), act)
        acts.insert(random.randrange(acts.index("join") + 1, len(acts) + 1), "leave")
        for place, act in enumerate(acts):
            self._pause()
            if act == "kill":
                self._kill()
            elif act == "join":
                supervisor.start("c")
            elif act == "leave":
                supervisor.retire("c")
            else:
                self._freezing = threading.Thread(target=self._freeze)
                self._freezing.start()
            self._watch.measure_from_now()
            if self._live and place in (len(acts) // 3, len(acts) // 2):
                throw_kill_switch(self._deployment.settings, KillSwitch(on=place == len(acts) // 3))
                self._change_prices()

    def _pause(self) -> None:
        random = self._random
        if random.random() < AT_WORK_SHARE:
            self._await_commit()
            time.sleep(random.uniform(0, AT_WORK_WITHIN_S))
        else:
            time.sleep(random.uniform(0, QUIET_S_MAX))

    def _kill(self) -> None:
        names = self._supervisor.names()
        wiped = self._random.random() < WIPED_SHARE
        self._result.kills += 1
        self._result.wiped += wiped
        self._result.at_work += time.monotonic() - self._watch.committed_at < 1
        self._killed_at.append(time.monotonic())
        self._supervisor.kill(self._random.choice(names), wiped)

    def _freeze(self) -> None:
        victim = self._random.choice([name for name in self._supervisor.names() if name != "c"])
        self._supervisor.freeze(victim, 2 * self._session_s)
        self._watch.measure_from_now()  # what wakes up ends, and joins anew

    def _await_commit(self) -> None:
        """Wait for the next commit, but not for ever: in a live run there may be nothing to do."""
        moves, ends_at = self._watch.moves, time.monotonic() + COMMIT_AWAITED_S
        while self._watch.moves == moves and time.monotonic() < ends_at and self._watch.error is None:
            time.sleep(0.02)

    # -- judgement -------------------------------------------------------------------------------------------------

    def _settle(self, loading: threading.Thread | None) -> None:
        """Wait until the backlog is gone, and measure how long partitions waited for a commit."""
        if self._freezing is not None:
            self._freezing.join()
        watch, result, begun = self._watch, self._result, time.monotonic()
        if loading is not None:
            loading.join()
        produced = time.monotonic()
        time.sleep(2 * POLL_S)
        while any(watch.backlog.values()) and time.monotonic() - produced < DRAINED_WITHIN_S and watch.error is None:
            time.sleep(POLL_S)
        result.drained_s = time.monotonic() - (begun if loading is None else produced)
        result.stall_s = watch.longest_stall_s
        result.restore_s = longest_restore_s(self._directory)
        if any(watch.backlog.values()):
            result.failures.append(f"after {DRAINED_WITHIN_S:.0f} s of peace the backlog is {watch.backlog}")
        result.allowed_s = self._sessions_to_wait() * self._session_s + result.restore_s + SLACK_S
        if result.stall_s > result.allowed_s + POLL_S:
            result.failures.append(f"a partition waited {result.stall_s:.1f} s for a commit: longer than is allowed")

    def _sessions_to_wait(self) -> int:
        """Return how many session timeouts the group itself may take after the last kill: one, or two.

        Kafka completes a join with a member that died while it was joining, gives it partitions, and notices after another
        session timeout. So it takes two if a worker was killed while the group still joined because of the kill before.
        """
        kills = self._killed_at
        return 2 if len(kills) > 1 and kills[-1] - kills[-2] < self._session_s + POLL_S else 1

    def _compare(self, log: Path) -> None:
        result, deployment = self._result, self._deployment
        published = deployment.published()
        result.prices, result.decisions = (sum(map(len, part)) for part in (published.prices, published.decisions))
        wrong_order = broken_order(published, deployment.topology)
        if wrong_order:
            result.failures.append(wrong_order)
        if self._live:
            log = deployment.record(self._directory / "recorded")
        differs = difference(expected(log, models=self._models), published)
        if differs:
            result.failures.append(differs)


def run(
    seed: int,
    kafka: str,
    events: int,
    kills: int,
    directory: Path,
    pace_s: float = PACE_S,
    model: Path | None = None,
) -> Result:
    """Do one run, with the artifact `model` if given, and return what came of it; logs stay if something was wrong."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    one = Run(seed, kafka, events, kills, directory, pace_s, model)
    try:
        result = one.go()
    finally:
        one._deployment.stop()
    if not result.failures:
        one._deployment.delete()
        shutil.rmtree(directory)
    return result


_COLUMNS = {
    "seed": "seed", "log is there": "mode", "prices": "prices", "decisions": "decisions", "SIGKILLs": "kills",
    "at work": "at_work", "wiped": "wiped", "other exits": "exits", "restore s": "restore_s",
    "longest wait s": "stall_s", "allowed": "allowed_s", "drained s": "drained_s", "s": "seconds", "load": "load",
}  # fmt: skip


def table_of(results: list[Result]) -> Table:
    """Return the runs as a table."""
    table = Table(title="Chaos", title_justify="left")
    for column in (*_COLUMNS, "verdict"):
        table.add_column(column, justify="right" if column != "verdict" else "left")
    for result in results:
        values = [getattr(result, name) for name in _COLUMNS.values()]
        cells = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in values]
        table.add_row(*cells, "[red]wrong[/]" if result.failures else "[green]equal[/]")
    return table


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="Of the first run; the others count up.")
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True)
@click.option("--kafka", metavar="HOST:PORT", help="A broker to use; without, one is started as for the tests.")
@click.option("--events", type=click.IntRange(1_000), default=60_000, show_default=True, help="Per run.")
@click.option("--kills", type=click.IntRange(1), default=14, show_default=True, help="SIGKILLs per run.")
@click.option(
    "--model",
    type=click.Path(exists=True, resolve_path=True, path_type=Path),
    help="Artifact that the workers price with.",
)
def chaos(seed: int, runs: int, kafka: str | None, events: int, kills: int, model: Path | None) -> None:
    """Kill workers at random instants and compare every committed record with an oracle; exit with 1 if one is wrong."""
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    console, results = Console(width=None if Console().is_terminal else 160), []
    with nullcontext(kafka) if kafka else conftest.broker(ROOT / ".chaos" / "kafka") as servers:
        for number in range(seed, seed + runs):
            result = run(number, servers, events, kills, ROOT / ".chaos" / f"seed-{number}", model=model)
            results.append(result)
            console.print(table_of([result]))
            for failure in result.failures:
                console.print(f"seed {number}: {failure}", style="red", markup=False)
    if runs > 1:
        console.print(table_of(results))
    failed = [result.seed for result in results if result.failures]
    total = sum(result.kills for result in results)
    console.print(f"{runs} runs, {total} SIGKILLs, {sum(r.wiped for r in results)} with a wiped data directory, {runs} "
                  f"freezes, {sum(r.prices for r in results)} price updates: {len(failed)} runs wrong")  # fmt: skip
    for number in failed:
        where = (f" --kafka {kafka}" if kafka else "") + (f" --model {model}" if model else "")
        command = f"python tests/faults/chaos.py --seed {number} --events {events} --kills {kills}{where}"
        console.print(f"again: {command}; logs in .chaos/seed-{number}", style="red", markup=False)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    chaos()
