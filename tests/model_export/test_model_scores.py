"""The model as a method of the next-item protocol: it scores as its artifact says."""

from __future__ import annotations

import numpy as np

from features.artifact import NO_ITEM
from model_export.evaluation import ModelScores
from model_export.next_item import interactions_of, task_of
from tests.features.models import SMALL, artifact

MINUTE = 60_000


def test_a_model_is_asked_about_a_log_with_fewer_events_than_it_looks_back_on() -> None:
    events, _ = interactions_of([("u", "item-1", 0), ("u", "item-2", 2 * MINUTE)])
    task = task_of(events, MINUTE, 3 * MINUTE, ["item-2"])
    known = artifact()
    vectors = np.ones((2, SMALL.floats), np.float32)
    last = np.array([[known.rows["item-1"], NO_ITEM, NO_ITEM, NO_ITEM]])
    wanted = known.scores(vectors[:1], last)[:, [known.rows[item] for item in task.candidates]]
    assert np.array_equal(ModelScores(task, vectors, known).scores(task, task.rows), wanted)
