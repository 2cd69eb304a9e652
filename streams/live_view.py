"""What the demo shows: the worker's metrics, and its price updates as a subscriber gets them, with reasons in words.

Reads only what anybody outside may read: /metrics, the input topics, the price updates. A latency is the time from an
event's record to the moment at which its price reaches the reader here; the two are joined by the decision id, which
follows from the event's position. Not here: starting anything (streams.demo).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from contracts.errors import UNREADABLE
from contracts.events import Consent, decode_event
from contracts.ids import DecisionIds
from contracts.prices import PriceUpdate, decode_price
from pricing.sentences import explain
from streams.settings import TopicSettings

RECENT_MAX = 8
"""Price updates on the screen."""
LATENCIES_MAX = 5_000
METRICS_EVERY_S = 0.5
POLL_S = 0.01


class Watch:
    """A reader of everything there is to see about one worker, in bounded memory for a bounded demo."""

    def __init__(self, broker: str, port: int, total: int) -> None:
        """`total`: records that the worker will have applied when it is done."""
        from confluent_kafka import Consumer, TopicPartition

        self._topics = TopicSettings()
        self._metrics_url = f"http://127.0.0.1:{port}/metrics"
        self._total = total
        self._begun = time.monotonic()
        self._metrics_at = 0.0
        self._sums: dict[str, Counter[str]] = {}
        self._sent_ms: dict[str, int] = {}
        self._priced_ms: dict[str, int] = {}
        self._ids: dict[tuple[str, int], DecisionIds] = {}
        self._recent: deque[PriceUpdate] = deque(maxlen=RECENT_MAX)
        self._latencies_ms: deque[int] = deque(maxlen=LATENCIES_MAX)
        self.updates = 0
        self._consumer: Any = Consumer(
            {"bootstrap.servers": broker, "group.id": "demo-watch", "enable.auto.commit": False,
             "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10, "log_level": 3}
        )  # fmt: skip
        read = [topic for topic in self._topics.topology.sources if topic != self._topics.consents]
        self._consumer.assign(
            [
                TopicPartition(topic, partition, 0)
                for topic in (*read, self._topics.price_updates)
                for partition in range(self._topics.partitions)
            ]
        )

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def poll(self, seconds: float) -> None:
        """Read for so long."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for message in self._consumer.consume(1_000, POLL_S):
                if message.error() is None:
                    self._take(message, int(time.time() * 1000))
        if time.monotonic() - self._metrics_at > METRICS_EVERY_S:
            self.read_metrics()

    def read_metrics(self) -> None:
        """Ask the worker for its metrics; keep the last ones if it does not answer."""
        self._metrics_at = time.monotonic()
        try:
            with urlopen(self._metrics_url, timeout=2) as answer:
                text = answer.read().decode()
        except (URLError, OSError):
            return
        sums: dict[str, Counter[str]] = {}
        for family in text_string_to_metric_families(text):
            of_family = sums.setdefault(family.name, Counter())
            for sample in family.samples:
                if not sample.name.endswith(("_created", "_bucket")):
                    of_family[next(iter(sample.labels.values()), "")] += int(sample.value)
        self._sums = sums

    def _take(self, message: Any, now_ms: int) -> None:  # noqa: ANN401 - confluent-kafka's Message
        if message.topic() != self._topics.price_updates:
            self._take_event(message)
            return
        update = decode_price(message.value())
        self.updates += 1
        self._recent.append(update)
        self._join(update.decision_id, self._priced_ms, now_ms, self._sent_ms)

    def _take_event(self, message: Any) -> None:  # noqa: ANN401 - confluent-kafka's Message
        try:
            event = decode_event(message.value())
        except UNREADABLE:
            return  # one of the bad records of the log: the worker dead-letters it
        if isinstance(event, Consent):
            return
        place = (message.topic(), message.partition())
        ids = self._ids.setdefault(place, DecisionIds(0, *place))
        self._join(ids.of(message.offset(), event.item), self._sent_ms, message.timestamp()[1], self._priced_ms)

    def _join(self, decision_id: str, mine: dict[str, int], at_ms: int, other: dict[str, int]) -> None:
        """Note one end of a latency; with the other end it is complete. Either may be read first."""
        if decision_id not in other:
            mine[decision_id] = at_ms
            return
        self._latencies_ms.append(abs(at_ms - other.pop(decision_id)))

    # -- showing ---------------------------------------------------------------------------------------------------

    def _sum(self, metric: str) -> int:
        return sum(self._sums.get(f"pricetide_{metric}", Counter()).values())

    @property
    def complete(self) -> bool:
        """Whether every record is applied and nothing waits."""
        return self._sum("events") >= self._total and self._sum("consumer_lag_records") == 0

    def _model(self) -> str:
        return next(iter(self._sums.get("pricetide_model_info", Counter())), "none yet")

    def _vectors(self) -> int:
        """One per event that was applied and was none of the repeated ones: each is a token."""
        events, outcomes = (self._sums.get(f"pricetide_{name}", Counter()) for name in ("events", "outcomes"))
        return events["view"] + events["click"] + events["purchase"] - outcomes["repeated"]

    def _latency(self, share: float) -> str:
        ordered = sorted(self._latencies_ms)
        return f"{ordered[int(share * (len(ordered) - 1))]} ms" if ordered else "-"

    def line(self) -> str:
        """Return the state of things on one line, with the latest price."""
        latest = (
            f" | {self._recent[-1].user} {self._recent[-1].item}: {explain(self._recent[-1])}" if self._recent else ""
        )
        return (
            f"{time.monotonic() - self._begun:4.0f} s  {self._sum('events'):>6,} of {self._total:,} events  "
            f"{self._sum('users'):>5,} users  lag {self._sum('consumer_lag_records'):>5,}  "
            f"p50 {self._latency(0.5)}  p99 {self._latency(0.99)}{latest}"
        )

    def render(self) -> RenderableType:
        """Return the live view."""
        events = self._sums.get("pricetide_events", Counter())
        kinds = Table.grid(padding=(0, 2))
        kinds.add_row(
            *(f"[dim]{kind}[/] {events[kind]:,}" for kind in ("view", "click", "purchase", "consent", "dead_letter"))
        )
        state = Table.grid(padding=(0, 2))
        state.add_row(
            f"[bold]{self._sum('events'):,}[/] of {self._total:,} events",
            f"[bold]{self._sum('users'):,}[/] users in state",
            f"lag [bold]{self._sum('consumer_lag_records'):,}[/]",
            f"event to price: p50 [bold]{self._latency(0.5)}[/]  p99 [bold]{self._latency(0.99)}[/]",
        )
        model = Table.grid(padding=(0, 2))
        model.add_row(
            f"[dim]model[/] {self._model()}",
            f"[dim]user vectors made[/] {self._vectors():,}",
            f"[dim]users resident[/] {self._sum('encoder_resident_users'):,}",
        )
        prices = Table(box=None, expand=True, show_header=False, padding=(0, 1))
        prices.add_column(no_wrap=True, style="cyan")
        prices.add_column(no_wrap=True)
        prices.add_column(ratio=1)
        for update in self._recent:
            prices.add_row(update.user, update.item, explain(update))
        return Group(
            Panel(Group(state, kinds, model), title="pricetide demo", title_align="left"),
            Panel(prices, title=f"latest of {self.updates:,} price updates", title_align="left"),
        )

    def summary(self) -> Table:
        """Return what happened, for the end."""
        table = Table(title="pricetide demo: done", title_justify="left", show_header=False)
        table.add_column(style="dim")
        table.add_column(justify="right")
        events, decisions = (self._sums.get(f"pricetide_{name}", Counter()) for name in ("events", "decisions"))
        for kind in ("view", "click", "purchase", "consent"):
            table.add_row(f"{kind}s applied", f"{events[kind]:,}")
        table.add_row("bad records, to the dead letters", f"{events['dead_letter']:,}", end_section=True)
        table.add_row("user vectors made, one per event", f"{self._vectors():,}")
        table.add_row("by the model", self._model(), end_section=True)
        table.add_row("price updates", f"{self.updates:,}")
        for status, words in (("drawn", "drawn anew"), ("held", "open offers, held"), ("list", "list price")):
            table.add_row(f"  {words}", f"{decisions[status]:,}")
        table.add_row("users in state, as last counted", f"{self._sum('users'):,}", end_section=True)
        table.add_row("event to price at a reader, p50 / p99", f"{self._latency(0.5)} / {self._latency(0.99)}")
        table.add_row("records still waiting", f"{self._sum('consumer_lag_records'):,}")
        return table
