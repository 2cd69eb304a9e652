"""Assignment of users to experiments, variants and holdouts: hashes of the user id, stored nowhere.

The hash is GrowthBook's: FNV-1a of 32 bits over UTF-16 code units, as its JavaScript computes it; version 2 hashes twice,
which version 1 does not, and is free of its bias towards equal variants of similar seeds. The four functions meet the
published cases of GrowthBook's SDKs (packages/sdk-js/test/cases.json, MIT). Namespaces keep version 1, as they do there.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from contracts.experiments import Experiment, Namespace

USERS_MAX = 65_536
"""Users whose lots are remembered; then all are forgotten, and drawn again when they come."""
HOLDOUT = ":holdout"
"""Appended to the seed for the hash of the holdout, which is independent of that of the variants."""

Range = tuple[float, float]


def fnv32a(text: str) -> int:
    """Return the 32-bit FNV-1a of the UTF-16 code units of `text`."""
    value = 0x811C9DC5
    for unit in memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H"):
        value = (value ^ unit) * 0x01000193 & 0xFFFFFFFF
    return value


def hash_of(seed: str, value: str, version: int) -> float:
    """Return a number in [0, 1): in steps of 1/1000 (version 1) or of 1/10000 (version 2)."""
    if version == 1:
        return fnv32a(value + seed) % 1000 / 1000
    return fnv32a(str(fnv32a(seed + value))) % 10_000 / 10_000


def bucket_ranges(variants: int, coverage: float, weights: Sequence[float] | None = None) -> list[Range]:
    """Return where each variant's covered users lie. Starts depend on the weights alone, so a ramp only adds users.

    Args:
        variants: how many.
        coverage: share of each variant's users, cut to 0..1.
        weights: a share each; equal ones stand in for None, for a wrong number of them, and where the sum is not 0.99 to 1.01.
    """
    coverage = min(max(coverage, 0.0), 1.0)
    if weights is None or len(weights) != variants or not 0.99 <= sum(weights) <= 1.01:
        weights = [1 / variants] * variants
    ranges: list[Range] = []
    start = 0.0
    for weight in weights:
        ranges.append((start, start + coverage * weight))
        start += weight
    return ranges


def choose_variant(number: float, ranges: Sequence[Range]) -> int:
    """Return the index of the first range that holds `number`, -1 if none does."""
    return next((index for index, (start, end) in enumerate(ranges) if start <= number < end), -1)


def in_namespace(user: str, namespace: Namespace) -> bool:
    """Return whether `user` lies in the namespace's range."""
    return namespace.start <= hash_of("__" + namespace.name, user, 1) < namespace.end


class Lot(Struct, frozen=True, gc=False):
    """What fell to a user."""

    experiment: int
    """Index into the running experiments."""
    variant: int
    held_out: bool


class Lots:
    """The lots of users under the experiments that run; one may serve a whole engine."""

    __slots__ = ("_drawn", "_experiments", "_ranges")

    def __init__(self) -> None:
        self._experiments: tuple[Experiment, ...] = ()
        self._ranges: list[list[Range]] = []
        self._drawn: dict[str, Lot | None] = {}

    def use(self, experiments: tuple[Experiment, ...]) -> None:
        """Draw under `experiments` from now on."""
        if experiments != self._experiments:
            self._experiments = experiments
            self._ranges = [ranges_of(one) for one in experiments]
            self._drawn.clear()

    def of(self, user: str) -> Lot | None:
        """Return the lot of `user`, None for one in no experiment. Says nothing of when they run."""
        try:
            return self._drawn[user]
        except KeyError:
            if len(self._drawn) >= USERS_MAX:
                self._drawn.clear()
            lot = self._drawn[user] = self._draw(user)
            return lot

    def _draw(self, user: str) -> Lot | None:
        for index, one in enumerate(self._experiments):
            if one.namespace is None or in_namespace(user, one.namespace):
                variant = choose_variant(hash_of(one.hash_seed, user, 2), self._ranges[index])
                if variant >= 0:
                    held_out = one.holdout > 0 and hash_of(one.hash_seed + HOLDOUT, user, 2) < one.holdout
                    return Lot(index, variant, held_out)
        return None


def ranges_of(experiment: Experiment) -> list[Range]:
    """Return where the users of each variant of `experiment` lie."""
    weights = [variant.weight for variant in experiment.variants]
    return bucket_ranges(len(weights), experiment.coverage, weights)
