"""The user transformer of a worker: loaded before the first event, exchanged between batches for the artifact that its path shows.

Artifacts are immutable and named by their digest; the path may be a link that a deployment moves. A new one is read and
checked beside the old one, which serves until then, and goes on serving if the new one is broken. An exchange needs no
agreement between workers: every price carries the digest that stood behind it, and vectors are rebuilt from the users'
tokens as they come. Not here: what an artifact must be (features.artifact), the inference (features.encoder).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

from contracts.errors import BadSettings
from contracts.semantics import Semantics
from features.artifact import artifact_digest, load_artifact
from features.encoder import Encoder
from features.vectors import Encoded, TokenAsk
from streams.metrics import Metrics
from streams.settings import EncoderSettings

logger = logging.getLogger(__name__)


class TimedEncoder(Encoder):
    """An encoder that knows how long it has been at work; the engine, which knows no clock, asks it once per batch."""

    seconds = 0.0

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """As Encoder.encode."""
        begun = time.perf_counter()
        encoded = super().encode(owner, asks)
        self.seconds += time.perf_counter() - begun
        return encoded


def open_encoder(settings: EncoderSettings, semantics: Semantics, model: Path) -> TimedEncoder:
    """Read and check the artifact in the directory `model`; return its encoder.

    Raises:
        BadSettings: the artifact is broken, needs a longer history than the state keeps, or the runtime is missing.
    """
    encoder = TimedEncoder(load_artifact(model), settings.users_max, settings.provider)
    encoder.require_history(semantics.history_events_max)
    return encoder


class Models:
    """The encoder in force, and the watch over the path that it came from."""

    def __init__(self, settings: EncoderSettings, semantics: Semantics, metrics: Metrics) -> None:
        self.current: TimedEncoder | None = None
        self._settings = settings
        self._semantics = semantics
        self._metrics = metrics
        self._refused = ""
        self._counted = (0, 0)
        """Hits and rebuilt tokens of the present encoder that the metrics have."""

    async def load(self) -> None:
        """Load the first artifact; nothing if none was asked for.

        Raises:
            BadSettings: why it cannot be used.
        """
        if self._settings.model is not None:
            self._take(await asyncio.to_thread(self._open, self._settings.model))

    async def follow(self) -> None:
        """Look for another artifact now and then, for ever; one that is refused changes nothing but a counter and the log."""
        path = self._settings.model
        while path is not None:
            await asyncio.sleep(self._settings.poll_ms / 1000)
            try:
                if artifact_digest(path) != self.digest:
                    self._take(await asyncio.to_thread(self._open, path))
            except BadSettings as error:
                self._refuse(str(error))

    @property
    def digest(self) -> str | None:
        """The digest of the artifact in force, None without one."""
        return None if self.current is None else self.current.digest

    @property
    def seconds(self) -> float:
        """Seconds that the encoder in force has been at work, 0 without one."""
        return 0.0 if self.current is None else self.current.seconds

    def release(self, owner: object) -> None:
        """Forget the users of a partition that is given up."""
        if self.current is not None:
            self.current.release(owner)

    def gauge(self) -> None:
        """Bring the encoder's numbers up to date, for whoever reads the metrics."""
        if self.current is not None:
            hits, rebuilt = self.current.hits, self.current.rebuilt
            self._metrics.encoder_users.set(self.current.residents)
            self._metrics.encoder_hits.inc(hits - self._counted[0])
            self._metrics.encoder_rebuilt.inc(rebuilt - self._counted[1])
            self._counted = (hits, rebuilt)

    def _open(self, path: Path) -> TimedEncoder:
        return open_encoder(self._settings, self._semantics, path.resolve())  # a link may move while it is read

    def _take(self, encoder: TimedEncoder) -> None:
        logger.info("model %s takes over from %s", encoder.digest, self.digest)
        if self.current is not None:
            self.gauge()
            self._metrics.model.remove(self.current.digest)
        self._metrics.model.labels(encoder.digest).set(1)
        self.current, self._refused, self._counted = encoder, "", (0, 0)

    def _refuse(self, sentence: str) -> None:
        if sentence != self._refused:  # it is looked at again at every poll: files may still be on their way
            logger.error("model %s goes on, the new one is refused: %s", self.digest, sentence)
            self._metrics.models_refused.inc()
        self._refused = sentence
