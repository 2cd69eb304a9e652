"""However it is batched: a backtest publishes the same bytes with any batch size."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, islice
from pathlib import Path

import pyarrow.parquet
import pytest

from backtest.perturb import Perturbation, perturb_log
from backtest.rees46 import import_rees46
from backtest.replay import Replay
from backtest.shoppers import generate_log
from contracts.log import open_log
from contracts.log_writer import LogWriter
from contracts.semantics import Topology

ONE_TOPIC = dict.fromkeys(["consents", "views", "clicks", "purchases"], "shop")


def published(directory: Path, batch_max: int):
    """Return per partition every price, decision, outcome and dead letter, in order."""
    out = defaultdict(list)

    def publish(partition, step):
        out[partition, "prices"] += step.prices
        out[partition, "decisions"] += step.decisions
        out[partition, "outcomes"] += step.outcomes
        out[partition, "dead"] += [(inbound.source, inbound.offset, error.code) for inbound, error in step.dead]

    Replay(open_log(directory), batch_max).run(publish)
    return {place: records for place, records in out.items() if records}


@pytest.fixture(scope="module")
def slice_of_rees46(rees46, tmp_path_factory):
    """The first 12,000 rows of the imported public log, with everything they refer to."""
    folder = tmp_path_factory.mktemp("slice")
    rows = pyarrow.parquet.read_table(rees46).slice(0, 12_000)  # of which the import makes more: consents
    pyarrow.parquet.write_table(rows, folder / "slice.parquet")
    import_rees46(folder / "slice.parquet", folder / "whole", Topology(partitions=3))
    whole = open_log(folder / "whole")
    with LogWriter(folder / "slice", whole.manifest) as writer:
        writer.rows(list(islice(whole.rows(), 12_000)))
        writer.catalogue(list(chain.from_iterable(whole.catalogue())))
        writer.policies(list(chain.from_iterable(whole.policies())))
    return folder / "slice"


@pytest.fixture(scope="module", params=["apart", "one topic"])
def perturbed(request, tmp_path_factory):
    """A generated log with late and repeated events, changing consents and changing list prices."""
    folder = tmp_path_factory.mktemp("perturbed")
    names = {} if request.param == "apart" else ONE_TOPIC
    generate_log(folder / "shop", users=80, events=2_500, seed=11, topology=Topology(partitions=3, **names))
    perturb_log(
        folder / "shop",
        folder / "log",
        2,
        Perturbation(late=0.1, duplicates=0.05, consents=0.05, catalogue=0.5, erasures=0.01),
    )
    return folder / "log"


@pytest.mark.parametrize("batch_max", [1, 7])
def test_a_perturbed_log_gives_the_same_bytes_in_batches_of_any_size(perturbed, batch_max):
    large = published(perturbed, 2_048)
    assert sum(len(records) for (_, kind), records in large.items() if kind == "prices") > 2_000
    assert sum(len(records) for (_, kind), records in large.items() if kind == "outcomes") > 500
    assert published(perturbed, batch_max) == large


@pytest.mark.parametrize("batch_max", [1, 7])
def test_the_public_log_gives_the_same_bytes_in_batches_of_any_size(slice_of_rees46, batch_max):
    large = published(slice_of_rees46, 2_048)
    assert sum(len(records) for (_, kind), records in large.items() if kind == "prices") > 8_000
    assert published(slice_of_rees46, batch_max) == large
