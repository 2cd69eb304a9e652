"""contracts.experiments and their fold: what an experiment may say, what may run, what may follow what."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from contracts.errors import BadReference
from contracts.experiments import Experiment, Guardrail, Namespace, RunningExperiments, Variant
from contracts.policies import (
    BUILTIN,
    KillSwitch,
    ListPrice,
    Policy,
    PolicyBook,
    decode_policy,
    encode_policy,
    policy_key,
)

CAREFUL = Policy(name="careful", number=1, rule=ListPrice())
MODELLED = Policy(name="modelled", number=1, rule=ListPrice(), model="m1", fallback="careful@1")
PLAIN = Variant(name="plain", weight=0.5, policy="builtin")
BOLD = Variant(name="bold", weight=0.5, policy="careful@1")
SPRING = Experiment(name="spring", number=1, variants=(PLAIN, BOLD), control="plain")


def book_of(*records):
    book = PolicyBook()
    for record in records:
        publish(book, record)
    return book


def publish(book, record):
    return book.apply(book.seen, policy_key(record), encode_policy(record))


def running(*versions):
    return RunningExperiments(experiments=versions)


def space(start, end, name="prices"):
    return Namespace(name=name, start=start, end=end)


def test_the_fold_knows_the_experiments_that_run():
    book = book_of(CAREFUL, SPRING, running("spring@1"))
    assert book.experiments.running == (SPRING,)
    assert book.of_variant("careful@1", None) == (CAREFUL, False)
    assert book.of_variant("builtin", "any") == (BUILTIN, False)
    publish(book, running())
    assert book.experiments.running == ()
    assert book.experiments.versions("spring") == [SPRING]


def test_records_survive_json_and_have_keys_of_their_own():
    for record in (SPRING, running("spring@1")):
        assert decode_policy(encode_policy(record)) == record
    assert policy_key(SPRING) == b"experiment/spring/1"
    assert policy_key(running()) == b"experiments"
    assert policy_key(Policy(name="experiment", number=1, rule=ListPrice())) != policy_key(SPRING)


def test_a_variant_of_another_model_is_priced_by_the_fallback():
    odd = replace(SPRING, variants=(PLAIN, replace(BOLD, policy="modelled@1")))
    book = book_of(CAREFUL, MODELLED, odd, running("spring@1"))
    assert book.of_variant("modelled@1", "m1") == (MODELLED, False)
    assert book.of_variant("modelled@1", "m2") == (CAREFUL, True)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"variants": (PLAIN, replace(BOLD, weight=0.4))}, "sum to 1"),
        ({"variants": (PLAIN, replace(BOLD, name="plain"))}, "different names"),
        ({"variants": (PLAIN, replace(BOLD, name="holdout"))}, "none is called holdout"),
        ({"variants": (replace(PLAIN, weight=1.0),)}, "length"),
        ({"control": "brave"}, "must name one of the variants"),
        ({"start_ms": 5, "stop_ms": 5}, "after start_ms"),
        ({"holdout": 0.6}, "<= 0.5"),
        ({"coverage": -0.1}, ">= 0"),
        ({"alpha": 0.5}, "< 0.5"),
        ({"metric": "clicks"}, "clicks"),
        ({"guardrails": [{"metric": "revenue", "worse_by": 2.0}]}, "<= 1"),
        ({"namespace": {"name": "prices", "start": 0.5, "end": 0.5}}, "must lie below"),
        ({"unheard_of": 1}, "unknown field"),
        ({"variants": [{"name": "plain", "weight": 1.0, "policy": "careful"}]}, "matching regex"),
    ],
)
def test_what_an_experiment_must_not_say_is_refused_by_its_name(more, complaint):
    plain = msgspec.to_builtins(SPRING) | msgspec.to_builtins(more)
    with pytest.raises(msgspec.ValidationError, match=complaint):
        decode_policy(msgspec.json.encode(plain))


def test_an_experiment_on_a_policy_that_is_not_there_is_refused_and_nothing_changes():
    book = book_of()
    with pytest.raises(BadReference, match=r"Variant bold of experiment spring@1 names policy careful@1"):
        publish(book, SPRING)
    assert (book.experiments.versions(), book.seen) == ([], 1)


def test_what_is_not_there_does_not_run():
    book = book_of(CAREFUL, SPRING, running("spring@1"))
    with pytest.raises(BadReference, match=r"spring@2 is not on the topic"):
        publish(book, running("spring@2"))
    assert book.experiments.running == (SPRING,)


def test_a_version_is_never_rewritten():
    book = book_of(CAREFUL, SPRING, SPRING)
    with pytest.raises(BadReference, match="published already and differs"):
        publish(book, replace(SPRING, coverage=0.5))


def test_a_later_version_is_a_ramp_or_a_later_end():
    book = book_of(CAREFUL, replace(SPRING, coverage=0.1))
    publish(book, replace(SPRING, number=2, coverage=0.5, stop_ms=9))
    with pytest.raises(BadReference, match="only adds users"):
        publish(book, replace(SPRING, number=3, coverage=0.2))
    with pytest.raises(BadReference, match=r"differs from spring@1 in seed, holdout"):
        publish(book, replace(SPRING, number=3, seed="new", holdout=0.1))
    assert [one.number for one in book.experiments.versions()] == [1, 2]


@pytest.mark.parametrize(
    ("spaces", "complaint"),
    [
        ((None, space(0.0, 0.5)), "one namespace"),
        ((None, None), "one namespace"),
        ((space(0.0, 0.5), space(0.5, 1.0, "other")), "one namespace"),
        ((space(0.0, 0.5), space(0.4, 1.0)), "overlap"),
        ((space(0.0, 1.0), space(0.2, 0.4)), "overlap"),
    ],
)
def test_experiments_that_could_share_a_user_do_not_run_at_once(spaces, complaint):
    both = [replace(SPRING, name=name, namespace=one) for name, one in zip(("one", "two"), spaces, strict=True)]
    book = book_of(CAREFUL, *both, running("one@1"))
    with pytest.raises(BadReference, match=complaint):
        publish(book, running("one@1", "two@1"))
    assert [one.name for one in book.experiments.running] == ["one"]


def test_experiments_apart_run_at_once_and_two_versions_of_one_do_not():
    both = [
        replace(SPRING, name="one", namespace=space(0.0, 0.5)),
        replace(SPRING, name="two", namespace=space(0.5, 1.0)),
    ]
    book = book_of(CAREFUL, *both, replace(both[0], number=2), running("one@1", "two@1"))
    assert len(book.experiments.running) == 2
    with pytest.raises(BadReference, match="Two versions"):
        publish(book, running("one@1", "one@2"))


def test_a_removal_forgets_the_version_and_lets_it_run_on():
    book = book_of(CAREFUL, SPRING, running("spring@1"))
    book.apply(book.seen, policy_key(SPRING), None)
    assert book.experiments.versions() == []
    assert book.experiments.running == (SPRING,)
    assert book.of_variant("careful@1", None)[0] == CAREFUL
    publish(book, KillSwitch(on=True))
    assert book.kill_switch


def test_guardrails_name_a_metric_and_the_harm_they_tolerate():
    watched = replace(SPRING, guardrails=(Guardrail(metric="consent", worse_by=0.1),))
    assert decode_policy(encode_policy(watched)) == watched
