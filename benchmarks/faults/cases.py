"""What is done to each run of the campaign: drawn from its seed, stratified over trainers, phases and faults."""

from __future__ import annotations

import random
from dataclasses import dataclass

PHASES = ("profile", "ingest", "mid-round", "checkpoint", "collect", "publish")
TRAINERS = ("xgboost", "lightgbm", "pytorch")
ROUNDS = 60
ROWS, FEATURES = 240_000, 8
WORKERS = 3
CHECKPOINT_EVERY = 6
FIRST_SEED = 7200
# Killing is what happens most; the others take longer to notice, and so to run.
_FAULTS = ("kill worker", "kill host", "kill worker", "kill host", "freeze worker", "cut host", "freeze host")


@dataclass(frozen=True)
class FaultCase:
    """One run and its fault.

    Args:
        seed: It is drawn from this; the same seed is the same case.
        trainer: Which framework.
        phase: When the fault strikes: at the first sign of this phase, or in the round `round`.
        fault: What happens.
        rank: Which worker, or whose host. Never that of the driver's own host where a host is lost.
        round: For `mid-round`, the round after which it strikes; for `checkpoint`, the checkpoint's.
        grows: Whether a host comes back after the first fault, and a second fault shows that it is used again.
    """

    seed: int
    trainer: str
    phase: str
    fault: str
    rank: int
    round: int
    grows: bool = False


def case_of(seed: int) -> FaultCase:
    """Return the case of a seed, `FIRST_SEED` or more."""
    number, draw = seed - FIRST_SEED, random.Random(seed)  # noqa: S311 - no secret
    place, turn = number % len(PHASES), number // len(PHASES)
    phase = PHASES[place]
    # A loop of PyTorch's reads its rows as it goes on: it has no profile.
    trainers = TRAINERS[:2] if phase == "profile" else TRAINERS
    # In seven turns each phase meets each entry of the faults once, and every phase and every fault each trainer.
    trainer = trainers[(turn + 2 * (place + place // 2)) % len(trainers)]
    # When the workers have done their part, what can be lost is the driver.
    fault = "kill driver" if phase == "publish" else _FAULTS[(turn + 3 * place) % len(_FAULTS)]
    rank = draw.randrange(1, WORKERS) if "host" in fault else draw.randrange(WORKERS)
    round_ = draw.randrange(CHECKPOINT_EVERY + 1, ROUNDS // 2)
    if phase == "checkpoint":
        round_ = CHECKPOINT_EVERY * draw.randrange(1, ROUNDS // CHECKPOINT_EVERY // 2 + 1)
    grows = phase in ("ingest", "mid-round") and fault == "kill host"
    return FaultCase(seed, trainer, phase, fault, rank, round_, grows)
