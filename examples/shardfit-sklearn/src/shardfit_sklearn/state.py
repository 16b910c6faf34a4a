"""Where Newton's method stands: a frozen value that a checkpoint holds without losing a bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from shardfit.errors import InvalidArgumentError
from shardfit_sklearn.sums import Vector

_FILE = "newton.json"


@dataclass(frozen=True, eq=False)
class NewtonState:
    """The state between two passes.

    Args:
        step: Passes done.
        candidate: Where the next pass measures; float64, shape [unknowns].
        accepted: The best so far.
        loss: The penalised loss there.
        converged: Whether `accepted` is the solution.
    """

    step: int
    candidate: Vector
    accepted: Vector
    loss: float = np.inf
    converged: bool = False

    @classmethod
    def start(cls, unknowns: int) -> Self:
        """Return the state before the first pass: all coefficients 0."""
        return cls(0, np.zeros(unknowns), np.zeros(unknowns))

    def halved(self) -> Self:
        """Return the state after a candidate that was worse: half the way back."""
        return replace(self, step=self.step + 1, candidate=(self.candidate + self.accepted) / 2)

    def moved(self, loss: float, candidate: Vector) -> Self:
        """Return the state after a candidate that was accepted."""
        return replace(self, step=self.step + 1, accepted=self.candidate, loss=loss, candidate=candidate)

    def finished(self, loss: float) -> Self:
        """Return the state after a candidate that is the solution."""
        return replace(self, step=self.step + 1, accepted=self.candidate, loss=loss, converged=True)

    def files(self) -> dict[str, bytes]:
        """Return the checkpoint. JSON holds every finite float exactly."""
        content = {
            "step": self.step,
            "candidate": self.candidate.tolist(),
            "accepted": self.accepted.tolist(),
            "loss": self.loss,
            "converged": self.converged,
        }
        return {_FILE: json.dumps(content).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Return the state that a checkpoint holds.

        Raises:
            InvalidArgumentError: The files are not those of a checkpoint.
        """
        if _FILE not in files:
            raise InvalidArgumentError(
                "going on from a checkpoint",
                f"found {sorted(files)!r}",
                "The run left none: it is over, or never began.",
            )
        content = json.loads(files[_FILE])
        candidate, accepted = np.array(content["candidate"]), np.array(content["accepted"])
        return cls(content["step"], candidate, accepted, content["loss"], content["converged"])
