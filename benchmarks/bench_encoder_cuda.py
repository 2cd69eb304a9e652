"""The user transformer on a CUDA device: users per second of steps and of rebuilds, beside the memory's own speed. No broker.

Wall time, results on the host again when the clock stops; medians. Float32 without TF32, as the product runs it. The floor of
a step is the time to read the rings once at the bandwidth that this device shows for negating an array of 512 MiB; a step
gathers them first, so it must read them twice and write them once. Without a CUDA provider this is refused with a sentence.
Does not judge prices, and makes no claim: what it prints is stated for the device it ran on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.bench_encoder import RESIDENT, random_artifact, sequences, stepping
from benchmarks.lab import Lab
from benchmarks.report import Cell, Report
from features.artifact import Artifact
from features.encoder import RUN_SIZES
from features.graph import Provider, open_session
from features.runs import GraphRuns, Tokens

TURNS, TURNS_QUICK = 25, 3
FLOATS = 1 << 27
"""Of the array whose copying shows the bandwidth: 512 MiB read, 512 MiB written."""
POSITION = 1_000
TOLERANCE = 1e-4
"""Of float32 on CUDA against the CPU, as in tests/gpu."""


def run(lab: Lab) -> Report:
    """Measure on CUDA; raise BadSettings where there is none."""
    return measure(lab, "cuda", FLOATS)


def measure(lab: Lab, provider: Provider, floats: int) -> Report:
    """Measure on `provider`, its bandwidth with an array of `floats`."""
    artifact = random_artifact(lab)[1]
    shape, turns = artifact.manifest.architecture.sizes, TURNS_QUICK if lab.quick else TURNS
    random = np.random.default_rng(1)
    runs = GraphRuns(artifact, RESIDENT, provider, RUN_SIZES["cuda"])
    bandwidth = 8 * floats / _seconds(_copying(provider, floats), turns)
    ring = shape.window * shape.layers * 2 * shape.key * 4
    rows: list[tuple[Cell, ...]] = []
    for users in RUN_SIZES["cuda"]:
        step = _seconds(stepping(runs, artifact, random, POSITION, users), turns)
        rebuild = _seconds(_rebuilding(runs, artifact, random, users), turns)
        floor = users * ring / bandwidth
        rows.append((users, step * 1e6, users / step, floor * 1e6, step / floor, users / rebuild))
    return Report(
        name="encoder_cuda",
        title=f"The user transformer on {provider}",
        columns=("users at a time", "µs per step", "users/s", "µs to read the rings", "times that", "rebuilt users/s"),
        rows=rows,
        claims=[],
        notes=[
            f"{ring:,} bytes of rings per user, float32; {bandwidth / 1e9:,.0f} GB/s measured, half of it writing.",
            f"A rebuild takes the last {artifact.manifest.architecture.reach + 1} tokens as one chunk.",
        ],
        wrong=_wrong(artifact, runs, random),
    )


def _copying(provider: Provider, floats: int) -> Callable[[], None]:
    """Return a go that negates an array on the device, which reads and writes 4 bytes per float."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    value, result = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "copy", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = open_session(model.SerializeToString(), provider)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(np.ones(floats, np.float32), provider, 0))
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(np.ones(floats, np.float32), provider, 0))

    def go() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return go


def _rebuilding(runs: GraphRuns, artifact: Artifact, random: np.random.Generator, users: int) -> Callable[[], None]:
    """Return a go that makes the vectors of `users` users from the last tokens they need."""
    needed = artifact.manifest.architecture.reach + 1
    feed = sequences(artifact, random, needed, users)
    at, counts = np.full(users, POSITION), np.full(users, needed)

    def go() -> None:
        runs.chunks(feed["rows"], feed["kinds"], feed["features"], feed["signals"], at, counts)

    return go


def _seconds(go: Callable[[], None], turns: int) -> float:
    go()
    times = []
    for _ in range(turns):
        begun = time.perf_counter()
        go()
        times.append(time.perf_counter() - begun)
    return median(times)


def _wrong(artifact: Artifact, runs: GraphRuns, random: np.random.Generator) -> list[str]:
    """Step some users on both devices until their rings have wrapped, and compare their vectors."""
    users, steps = 64, artifact.manifest.architecture.window + 8
    feed = sequences(artifact, random, steps, users)
    on_cpu = GraphRuns(artifact, users, "cpu", (users,))
    worst = 0.0
    for at in range(steps):
        rows, kinds, features, signals = (feed[name][:, at] for name in ("rows", "kinds", "features", "signals"))
        tokens = Tokens(rows, kinds, features, signals, np.full(users, at), np.arange(users))
        found, wanted = (device.step(tokens, np.arange(users))[0] for device in (runs, on_cpu))
        worst = max(worst, float(np.abs(found - wanted).max()))
    return [] if worst <= TOLERANCE else [f"vectors differ from those of the CPU by {worst:.1e}"]
