"""What a step of the user transformer costs, beside what others do instead; and what a user's state weighs. No broker.

CPU time of this process, one thread; the ways take turns, and each number is the median of its turns, so a slow minute of
the machine is in all of them. The order is drawn anew for every turn: whoever always followed the longest re-encoding would
find the caches full of it, for a few steps. Weights are random: speed does not depend on them. The graphs of re-encoding
are those of benchmarks.peer, with the same weights; those over the whole reach are checked against the encoder's vectors.
The claims are judged by the stronger of the two, which evaluates one query in its last layer: that is the peer of the
prototype whose figures they come from.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backtest.replay import Replay
from benchmarks.full_histories import make_profile
from benchmarks.lab import Lab
from benchmarks.logs import PARTITIONS
from benchmarks.report import Cell, Claim, Report
from contracts.errors import BadSettings
from contracts.events import View
from features.artifact import Artifact, load_artifact
from features.encoder import Encoder
from features.graph import open_session
from features.inputs import FEATURE_NAMES, read_inputs
from features.rings import Rings
from features.runs import GraphRuns, Tokens
from features.signals import NO_SIGNALS, SIGNAL_NAMES
from features.state import decode_state
from features.tokens import append_token, token_of
from features.vectors import TokenAsk
from pricing.engine import Step

if TYPE_CHECKING:
    from model_export.network import UserNetwork

BATCH = 64
EVERY, ONE = "every token's vector", "one query in the last layer"
"""The peers: as a network is exported in the ordinary way; cut down to what the newest vector needs."""
ITEMS = 10_000
RESIDENT = 10_000
"""Users in the slab: 160 MiB, so no ring waits in a cache."""
TURNS, TURNS_QUICK = 25, 3
PROBES = 5
"""Goes that say how many make a turn; the first ones find the caches full of something else, and would make it short."""
ASKS, ASK_USERS = 2_048, 700
YOUNG, OLD = 100, 100_000
START_MS = 1_572_566_400_000
TOLERANCE = 1e-5

Ways = dict[str, tuple[int, Callable[[], None]]]
"""By name: users or tokens in one go, and the go."""


def run(lab: Lab) -> Report:
    """Measure steps against re-encoding, the encoder with all its Python, and the bytes of a user."""
    peers, artifact = _peers(lab)
    random = np.random.default_rng(1)
    window, exact = artifact.manifest.architecture.window, artifact.manifest.architecture.reach + 1
    feeds = {length: sequences(artifact, random, length, BATCH) for length in (window, exact)}
    runs = GraphRuns(artifact, RESIDENT, "cpu", (BATCH,))
    young, old = (stepping(runs, artifact, random, position, BATCH) for position in (YOUNG, OLD))
    ways: Ways = {"step": (BATCH, young), "step of an old user": (BATCH, old)}
    for name, graph in peers.items():
        for length, feed in feeds.items():
            ways[f"{name} {length}"] = (BATCH, _encoding_again(graph, feed))
    cost = _medians(ways, TURNS_QUICK if lab.quick else TURNS)
    warm, cold, rebuilt = _encoding(artifact, random, 2 if lab.quick else 9)
    rows = [
        *_of_graphs(cost, window, exact),
        (f"the encoder, {ASKS:,} events of {ASK_USERS} users, rings ready", warm, warm / cost["step"]),
        (
            f"the encoder, the same, no ring ready: {rebuilt:.0f} tokens run per event",
            cold,
            cold / cost["step"],
        ),
    ]
    return Report(
        name="encoder",
        title=f"The user transformer on one CPU thread, {BATCH} users at a time",
        columns=("", "CPU µs per user or event", "times a step"),
        rows=rows,
        claims=_claims(cost, window, exact),
        notes=[*_weights(lab, artifact), *_about(artifact)],
        wrong=_wrong(artifact, peers, random, exact),
    )


def _of_graphs(cost: dict[str, float], window: int, exact: int) -> list[tuple[Cell, ...]]:
    """Return the rows of steps and of encoding again."""
    step, old = cost["step"], cost["step of an old user"]
    rows: list[tuple[Cell, ...]] = [
        (f"a step, position {YOUNG:,}", step, 1.0),
        (f"a step, position {OLD:,}", old, old / step),
    ]
    for name in (EVERY, ONE):
        for length, function in ((window, "another function"), (exact, "the same function")):
            again = cost[f"{name} {length}"]
            rows.append((f"encode the last {length} again, {name} ({function})", again, again / step))
    return rows


def _claims(cost: dict[str, float], window: int, exact: int) -> list[Claim]:
    step, old = cost["step"], cost["step of an old user"]
    again, recompute = cost[f"{ONE} {window}"] / step, cost[f"{ONE} {exact}"] / step
    return [
        _claim(f"re-encoding the last {window}, {ONE}, against a step", again, 20, at_least=True),
        _claim(f"the exact recompute of {exact}, {ONE}, against a step", recompute, 50, at_least=True),
        _claim(f"a step at position {OLD:,} against one at {YOUNG}", old / step, 1.1, at_least=False),
    ]


def _claim(what: str, measured: float, limit: float, at_least: bool) -> Claim:
    return Claim(what=what, measured=measured, limit=limit, unit="times", at_least=at_least)


def random_artifact(lab: Lab) -> tuple[UserNetwork, Artifact]:
    """Return a random model of ITEMS items as a network and as an artifact, which is written to the lab's directory.

    Raises:
        BadSettings: the libraries that export a model are not installed.
    """
    try:
        from model_export.export import random_model, write_model
    except ImportError as error:
        raise BadSettings(
            f"The benchmark exports a model ({error}): pip install 'pricetide[encoder,model-export]'"
        ) from error
    model = random_model([f"{1_000_000 + number}" for number in range(ITEMS)], seed=1)
    directory = lab.work / "random-model"
    write_model(directory, model, "none", {}, seed=1)
    return model.network, load_artifact(directory)


def _peers(lab: Lab) -> tuple[dict[str, bytes], Artifact]:
    """Return the peers' graphs by name, and the artifact of a random model with the same weights."""
    network, artifact = random_artifact(lab)
    from benchmarks.peer import EveryVector, LastVector, export_peer

    return {EVERY: export_peer(EveryVector(network)), ONE: export_peer(LastVector(network))}, artifact


def _encoding_again(graph: bytes, feed: dict[str, NDArray[np.generic]]) -> Callable[[], None]:
    """Return a go of a peer's graph over `feed`, in a session that knows the sizes as that of the steps does."""
    users, tokens = feed["rows"].shape
    session = open_session(graph, fixed={"users": users, "tokens": tokens})
    return lambda: session.run(None, feed)


def sequences(artifact: Artifact, random: np.random.Generator, length: int, users: int) -> dict[str, NDArray[Any]]:
    """Return a feed of the peers' graphs: random sequences of `length` tokens."""
    return {
        "rows": random.integers(0, ITEMS + 1, (users, length)),
        "kinds": random.integers(0, 4, (users, length)),
        "features": random.random((users, length, len(FEATURE_NAMES)), np.float32),
        "signals": random.random((users, length, len(SIGNAL_NAMES)), np.float32),
        "items": artifact.item_rows,
    }


def stepping(
    runs: GraphRuns, artifact: Artifact, random: np.random.Generator, position: int, users: int
) -> Callable[[], None]:
    """Return a go that steps `users` users at `position`, other ones each time; `runs` has RESIDENT slots."""
    feed = sequences(artifact, random, 1, users)
    everybody, everyone = random.permutation(RESIDENT), np.arange(users)
    rows, kinds, features, signals = (feed[name][:, 0] for name in ("rows", "kinds", "features", "signals"))
    at = np.full(users, position)
    turn = 0

    def go() -> None:
        nonlocal turn
        slots = everybody[turn : turn + users]
        turn = (turn + users) % (RESIDENT - users)
        runs.step(Tokens(rows, kinds, features, signals, at, slots), everyone)

    for _ in range(RESIDENT // users):  # memory that nobody has touched yet is not there yet
        go()
    return go


def _medians(ways: Ways, turns: int) -> dict[str, float]:
    """Return the median CPU µs per user or token of each way, taken in turns of about as long, in a random order."""
    random = np.random.default_rng(2)
    names = list(ways)
    times: dict[str, list[float]] = {name: [] for name in ways}
    goes = {
        name: max(1, round(0.02 / max(min(_seconds(go) for _ in range(PROBES)), 1e-6)))
        for name, (_, go) in ways.items()
    }
    for _ in range(turns):
        for name in random.permutation(names).tolist():
            size, go = ways[name]
            times[name].append(_seconds(go, goes[name]) / goes[name] / size * 1e6)
    return {name: median(found) for name, found in times.items()}


def _seconds(go: Callable[[], None], times: int = 1) -> float:
    begun = time.process_time()
    for _ in range(times):
        go()
    return time.process_time() - begun


class _Shopper:
    """A user and what a state keeps of their tokens."""

    def __init__(self, name: bytes) -> None:
        self.name, self.position, self.history, self.kept = name, 0, b"", 0

    def ask(self, random: np.random.Generator) -> TokenAsk:
        item, price = f"{1_000_000 + int(random.integers(0, ITEMS))}", int(random.integers(100, 200_000))
        at = START_MS + 60_000 * self.position
        event = View(event_id="e", user="u", item=item, event_time_ms=at, price=price, currency="USD")
        token = token_of(event, price + int(random.integers(0, 2)) * 900)
        asked = TokenAsk(self.name, self.position, self.history, token, NO_SIGNALS)
        self.history, self.kept = append_token(self.history, self.kept, token, 128)
        self.position += 1
        return asked


def _encoding(artifact: Artifact, random: np.random.Generator, turns: int) -> tuple[float, float, float]:
    """Return µs per event with rings ready and without, and the tokens that were run per event without."""
    shoppers = [_Shopper(b"%09d" % number) for number in range(ASK_USERS)]
    for shopper in shoppers:
        for _ in range(130):
            shopper.ask(random)
    encoder = Encoder(artifact, RESIDENT)

    def timed() -> float:
        chosen = [*range(ASK_USERS), *random.integers(0, ASK_USERS, ASKS - ASK_USERS).tolist()]
        asks = [shoppers[number].ask(random) for number in chosen]
        begun = time.process_time()
        encoder.encode("bench", asks)
        return (time.process_time() - begun) / ASKS * 1e6

    warm, cold = [], []
    for _ in range(turns):
        encoder.release("bench")
        cold.append(timed())
        warm.append(timed())
    return median(warm), median(cold), 1 + encoder.rebuilt / turns / ASKS


def _weights(lab: Lab, artifact: Artifact) -> list[str]:
    """Return sentences about the bytes of a user: resident, stored, in the changelog."""
    sizes = artifact.manifest.architecture.sizes
    ring = sizes.window * sizes.layers * 2 * sizes.key * 4
    tracemalloc.start()
    rings = Rings(RESIDENT)
    for number in range(RESIDENT):
        rings.take(("owner", b"%09d" % number))
    books = tracemalloc.get_traced_memory()[0] / RESIDENT
    tracemalloc.stop()
    full = make_profile(lab.work / "log-of-one", 1, 1, PARTITIONS).state
    history = len(decode_state(full).history)
    events = states = whole = tokens = 0

    def publish(partition: int, step: Step) -> None:
        nonlocal events, states, whole, tokens
        events += step.partition.applied - applied[partition]
        applied[partition] = step.partition.applied
        states += len(step.states)
        whole += sum(len(user) + len(value) for user, value in step.states.items())
        tokens += sum(len(decode_state(value).history) for value in step.states.values())

    applied = [0] * lab.log.manifest.topology.partitions
    Replay(lab.log).run(publish)
    return [
        f"A resident user takes {ring:,} bytes of slab and {books:,.0f} of books.",
        f"A stored user with a full history of 128 tokens has {history:,} bytes of tokens in a state of {len(full):,} bytes.",
        f"Over the log ({events:,} events, {states:,} states written in batches of 2,048) the changelog takes "
        f"{whole / events:,.0f} bytes per event, {tokens / events:,.0f} of them tokens; the model adds nothing else to it.",
    ]


def _about(artifact: Artifact) -> list[str]:
    shape = artifact.manifest.architecture
    return [
        f"Width {shape.width}, {shape.layers} layers, {shape.heads} heads on {shape.kv_heads} of keys, window "
        f"{shape.window}, {ITEMS:,} items, {RESIDENT:,} users in the slab, other ones in every step.",
        f"Encoding again is done twice: '{EVERY}' is the network as it was trained, exported over whole sequences; '{ONE}' is "
        "cut down to the newest vector, as the peer of the prototype was, from whose figures the claims come: they are judged "
        "by it. All give the vector and the logit; items come from the same table, sessions know their sizes, norms are "
        "transformers' own. Scores of next items, which look at the last items again, are no part of either. "
        f"onnxruntime {version('onnxruntime-gpu')}, torch {version('torch')}, transformers {version('transformers')}.",
    ]


def _wrong(artifact: Artifact, peers: dict[str, bytes], random: np.random.Generator, exact: int) -> list[str]:
    """Compare the encoder's vector of a user with what re-encoding the whole reach makes of them."""
    shopper = _Shopper(b"judge")
    asks = [shopper.ask(random) for _ in range(exact)]
    encoded = Encoder(artifact, 1).encode("bench", asks)
    read = read_inputs(b"".join(ask.token for ask in asks), {0: None}, artifact.rows)
    feed = {
        "rows": read.rows[None],
        "kinds": read.kinds[None],
        "features": read.features[None],
        "signals": np.array([[ask.signals for ask in asks]], np.float32),
        "items": artifact.item_rows,
    }
    wrong = []
    for name, graph in peers.items():
        vectors, logits = open_session(graph).run(None, feed)
        by = max(np.abs(vectors[0, -1] - encoded.vectors[-1]).max(), abs(logits[0, -1] - encoded.logits[-1]))
        if not by <= TOLERANCE:
            wrong.append(f"what steps and '{name}' make of a user differs by {by:.1e}")
    return wrong
