"""What a user's place in an experiment means for the price: whose menus, which seed, list price or not.

Lots are drawn in pricing.assignment; here they meet the policies and the model in force. Not here: prices.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from contracts.policies import Policy, PolicyBook
from pricing.assignment import Lots
from pricing.draws import uniforms
from pricing.menus import MenuBook, MenuShelf

Stamp = tuple[str | None, str | None, bool]
"""What decisions and outcomes carry: experiment with its number, variant, whether held out."""
NO_STAMP: Stamp = (None, None, False)


class Treatment(Struct, frozen=True, gc=False):
    """How the users of one variant are priced, those who are held out or the others."""

    menus: MenuBook
    policy: str
    """The version that prices; of who is held out, the one that would."""
    fallback: bool
    """That version prices in place of the variant's, which was made for another model."""
    stamp: Stamp
    held_out: bool
    holdout: float
    """Share of users who are held out."""


class Treatments:
    """The treatments of the experiments that run, under one policy in force and one model."""

    def __init__(self, policies: PolicyBook, model: str | None, shelf: MenuShelf, lots: Lots) -> None:
        """Begin.

        Args:
            policies: at least one experiment runs.
            model: digest of the artifact in force.
            shelf: gives the menus; the policy in force has its book there, too.
            lots: of users; kept between steps.
        """
        self._running = policies.experiments.running
        self._current, self._model = policies.current, model
        self._lots = lots
        lots.use(self._running)
        arms = [[policies.of_variant(variant.policy, model) for variant in one.variants] for one in self._running]
        flat: list[Policy] = [policy for row in arms for policy, _ in row]
        self.menus, *rest = shelf.of(policies.in_force(model), *flat)
        """Of the policy in force, which prices everybody else."""
        books = iter(rest)
        self._of: dict[tuple[int, int, bool], Treatment] = {}
        for index, (one, row) in enumerate(zip(self._running, arms, strict=True)):
            for place, (variant, (policy, fallback)) in enumerate(zip(one.variants, row, strict=True)):
                book = next(books)
                for held_out in (False, True):
                    self._of[index, place, held_out] = Treatment(
                        book,
                        policy.version,
                        fallback,
                        (one.version, variant.name, held_out),
                        held_out,
                        one.holdout,
                    )
        self._ids: Sequence[str] = ()
        self._draws: dict[int, list[float]] = {}

    def hold(self, policies: PolicyBook, model: str | None) -> bool:
        """Return whether these are still the treatments under `policies` and `model`."""
        same = policies.experiments.running is self._running and policies.current is self._current
        return same and model == self._model

    def begin(self, decision_ids: Sequence[str]) -> None:
        """Take the ids of the batch, one per record."""
        self._ids = decision_ids
        self._draws.clear()

    def of(self, user: str, now_ms: int) -> Treatment | None:
        """Return the treatment of `user` at event time `now_ms`; None for one in no experiment then."""
        lot = self._lots.of(user)
        if lot is None:
            return None
        one = self._running[lot.experiment]
        if now_ms < one.start_ms or (one.stop_ms is not None and now_ms >= one.stop_ms):
            return None
        return self._of[lot.experiment, lot.variant, lot.held_out]

    def uniform(self, treatment: Treatment, place: int) -> float:
        """Return the uniform number of the record at `place` of the batch, under the seed of the treatment's policy."""
        seed = treatment.menus.policy.seed
        numbers = self._draws.get(seed)
        if numbers is None:
            numbers = self._draws[seed] = uniforms(seed, self._ids)
        return numbers[place]
