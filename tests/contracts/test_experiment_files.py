"""contracts.experiment_files: an experiment as a person writes it, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import BadInput
from contracts.experiment_files import decode_experiment_file, read_experiment
from contracts.experiments import Experiment, Guardrail, Variant

DEPLOY = Path(__file__).parents[2] / "deploy" / "experiments"
LEAST = """name = "spring"
control = "plain"
[[variants]]
name = "plain"
weight = 0.5
policy = "builtin"
[[variants]]
name = "bold"
weight = 0.5
policy = "bold@1"
"""


def test_what_is_left_out_has_its_default():
    variants = (
        Variant(name="plain", weight=0.5, policy="builtin"),
        Variant(name="bold", weight=0.5, policy="bold@1"),
    )
    expected = Experiment(name="spring", number=1, control="plain", variants=variants)
    assert decode_experiment_file(LEAST, "spring.toml") == expected
    assert expected.holdout == 0.05


def test_the_example_is_an_experiment_and_its_dates_are_event_times():
    found = read_experiment(DEPLOY / "spring.toml")
    assert found.start_ms == 1_762_160_400_000
    assert found.guardrails == (Guardrail(metric="consent", worse_by=0.02),)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("number = 3\n", r"spring.toml, line 1: number is not for the file; remove it"),
        ("start = 2026-11-22\n", r"spring.toml, line 1: start must be a date with time and zone"),
        ("start = 2026-11-22T09:00:00\n", r"line 1: start must be a date with time and zone"),
        ("coverage = 2.0\n", r"line 1: coverage must be a number <= 1.0; correct it"),
        ("coverage = nan\n", r"nan is not a finite number; correct it"),
        (
            "holdouts = 0.1\n",
            r"line 1: holdouts is unknown; did you mean holdout\? Known here: name, variants, control, ",
        ),
        ("begin = 2026-11-22T09:00:00Z\n", r"line 1: begin is unknown; remove it. Known here: .*, start, stop$"),
        ("namespace = {nam = 'a', start = 0.0, end = 1.0}\n", r"line 1: namespace.nam is unknown; did you mean name\?"),
        ('metric = "profit"\n', r"line 1: metric cannot be 'profit'; correct it: one of margin, revenue$"),
        ('promote = "never"\n', r"line 1: promote cannot be 'never'; correct it: one of by_hand, when_better$"),
        (
            "guardrails = [{metric = 'clicks'}]\n",
            r"line 1: guardrails\[0\].metric cannot be 'clicks'; .* one of consent, conv",
        ),
        ("name = \n", r"is not TOML for an experiment: .* correct it"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(more, sentence):
    with pytest.raises(BadInput, match=sentence):
        decode_experiment_file(more + LEAST, "spring.toml")


def test_a_mistake_in_a_variant_names_the_key_that_was_meant():
    with pytest.raises(
        BadInput,
        match=r"line 6: variants\[0\].polcy is unknown; did you mean policy\? Known here: name, weight",
    ):
        decode_experiment_file(LEAST.replace("policy", "polcy", 1), "spring.toml")
    with pytest.raises(BadInput, match=r"variants\[1\].weight is missing; add it"):
        decode_experiment_file(LEAST[::-1].replace("weight = 0.5\n"[::-1], "", 1)[::-1], "spring.toml")


def test_weights_that_do_not_sum_to_one_are_named():
    with pytest.raises(BadInput, match=r"must sum to 1, they sum to 0.9; correct it"):
        decode_experiment_file(LEAST.replace("weight = 0.5", "weight = 0.4", 1), "spring.toml")


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        read_experiment(tmp_path / "none.toml")
