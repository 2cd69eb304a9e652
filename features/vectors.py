"""What the engine asks of the user transformer and what it gets back: one vector and one logit per token.

The shape of the question, free of any runtime: an engine without a model needs none. Not here: who answers
(features.encoder).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import exp
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BrokenInvariant
from features.signals import Signals


class TokenAsk(NamedTuple):
    """One token to be read, as the next of its user."""

    user: bytes
    position: int
    """Tokens that the user ever had before this one."""
    history: bytes
    """The user's tokens before this one, oldest first; as many as the state keeps."""
    token: bytes
    signals: Signals
    """As of this token; only its logit reads them (features.signals)."""


class Encoded(NamedTuple):
    """The answers to n asks, in their order."""

    vectors: NDArray[np.float32]
    """(n, v): the user as of each token."""
    logits: NDArray[np.float32]
    """(n,): of a purchase of the token's item at its list price, calibrated."""


class TokenEncoder(Protocol):
    """What an engine needs of features.encoder.Encoder. Equal asks have equal answers, whatever was asked before."""

    @property
    def digest(self) -> str:
        """The digest of the artifact; decisions are stamped with it."""

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """Read the tokens of `asks`.

        Args:
            owner: whose users these are; equal keys of two owners are two users.
            asks: in applied order; several of one user follow each other in position.
        """

    def release(self, owner: Hashable) -> None:
        """Forget the users of `owner`."""

    def forget(self, owner: Hashable, user: bytes) -> None:
        """Forget one of them."""


class Taste(NamedTuple):
    """What the model makes of a user and an item, as of one event of the user with that item."""

    preference: float
    """r_ui in 0..1: the propensity to buy the item at its list price, to six decimals."""
    vector: NDArray[np.float32]
    """(v,): the user."""


def tastes_of(encoded: Encoded) -> list[Taste]:
    """Return the answers one by one; a preference is the logistic function of its logit, to six decimals.

    Raises:
        BrokenInvariant: a logit is no number: the model, or the machine, is broken.
    """
    if not np.isfinite(encoded.logits).all():
        raise BrokenInvariant(
            "The model gave a logit that is not finite: run `pricetide model verify` on its artifact, and report it"
        )
    return list(map(Taste, _preferences(encoded.logits), encoded.vectors))


def _preferences(logits: NDArray[np.float32]) -> list[float]:
    """Return 1 / (1 + exp(-logit)) to six decimals, halves up.

    The exponentials are libm's, one by one, and what follows is exact or correctly rounded in every lane: the bits of a preference
    cannot depend on its batch.
    """
    odds = np.array([exp(-size) for size in np.abs(logits).tolist()])  # never above 1: no logit is too large
    shares = odds / (1.0 + odds)
    rounded: list[float] = (np.floor(np.where(logits > 0, 1.0 - shares, shares) * 1e6 + 0.5) / 1e6).tolist()
    return rounded
