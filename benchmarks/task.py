"""What every contestant is given, and what it says when it is done."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

LABEL = "label"
WORKERS = 2

# One model for all. Threads are not among these: each contestant divides the same two cores among its workers.
PARAMS: dict[str, Any] = {
    "objective": "binary:logistic",
    "eval_metric": "logloss",
    "tree_method": "hist",
    "max_depth": 6,
    "max_bin": 256,
    "eta": 0.3,
}
LIGHTGBM_PARAMS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 63,
    "learning_rate": 0.1,
    "max_bin": 255,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True)
class Task:
    """One training, the same for every contestant.

    Args:
        train: Folder of Parquet files.
        model: Where the trained booster goes, as UBJSON.
        scratch: An empty folder for whatever the contestant leaves behind.
        rounds: Boosting rounds.
        cores: Cores that may be used in all.
    """

    train: Path
    model: Path
    scratch: Path
    rounds: int
    cores: int

    @classmethod
    def from_command_line(cls, arguments: Sequence[str] | None = None) -> Self:
        """Return the task that the command line describes."""
        parser = argparse.ArgumentParser()
        for name in ("train", "model", "scratch"):
            parser.add_argument(f"--{name}", type=Path, required=True)
        for name in ("rounds", "cores"):
            parser.add_argument(f"--{name}", type=int, required=True)
        return cls(**vars(parser.parse_args(arguments)))

    def to_command_line(self) -> list[str]:
        """Return the arguments that `from_command_line` reads."""
        names = ("train", "model", "scratch", "rounds", "cores")
        return [text for name in names for text in (f"--{name}", str(getattr(self, name)))]

    @property
    def files(self) -> list[str]:
        """The Parquet files, sorted by name."""
        return sorted(str(path) for path in self.train.glob("*.parquet"))


@dataclass(slots=True)
class Stopwatch:
    """Seconds of each phase, in the order in which they ended."""

    phases: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=time.perf_counter)

    def lap(self, phase: str) -> None:
        """End `phase`, which began where the last one ended."""
        now = time.perf_counter()
        self.phases[phase] = now - self._last
        self._last = now

    def report(self) -> None:
        """Print the phases as the one JSON line that the benchmark reads."""
        print(json.dumps({"phases": self.phases}), flush=True)


def read_report(output: str) -> dict[str, float]:
    """Return the phases from the last line of a contestant's output that is a report.

    Raises:
        ValueError: There is none.
    """
    for line in reversed(output.splitlines()):
        if line.startswith('{"phases"'):
            phases: dict[str, float] = json.loads(line)["phases"]
            return phases
    raise ValueError(f"the contestant printed no report; its output ends with {output[-500:]!r}")
