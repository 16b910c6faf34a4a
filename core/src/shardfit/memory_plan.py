"""What a worker's memory goes to, phase by phase, before it is spent: each figure with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

MemoryPhase = Literal["profile", "ingest", "fit"]

PHASES: tuple[MemoryPhase, ...] = ("profile", "ingest", "fit")


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """Something that takes memory, or room on the local disk.

    Args:
        name: A word or two, unique within a plan.
        bytes: At its most.
        why: What it is and how it is reckoned, for people.
        phases: When it is there; none for what lies on the disk.
    """

    name: str
    bytes: int
    why: str
    phases: tuple[MemoryPhase, ...] = PHASES


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of the largest worker.

    Args:
        parts: What it goes to.
        available: Least bytes that a worker has, limits of containers included; 0 where unknown.
    """

    parts: tuple[MemoryPart, ...]
    available: int = 0

    @classmethod
    def of(cls, parts: Iterable[MemoryPart], available: int = 0) -> MemoryPlan:
        """Return the plan of `parts`, those without bytes left out."""
        return cls(tuple(part for part in parts if part.bytes), available)

    def phase(self, phase: MemoryPhase) -> int:
        """Return the bytes that a worker needs in one phase."""
        return sum(part.bytes for part in self.parts if phase in part.phases)

    @property
    def phases(self) -> Mapping[str, int]:
        """Phase -> bytes, in the order in which they come."""
        return {phase: self.phase(phase) for phase in PHASES}

    @property
    def peak(self) -> int:
        """Most bytes of any phase."""
        return max(self.phases.values())

    @property
    def disk(self) -> int:
        """Bytes on the local disk."""
        return sum(part.bytes for part in self.parts if not part.phases)

    def __getitem__(self, name: str) -> int:
        """Return the bytes of the part called `name`; 0 where there is none."""
        return sum(part.bytes for part in self.parts if part.name == name)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values that JSON can hold."""
        parts = [
            {"part": part.name, "bytes": part.bytes, "phases": list(part.phases), "why": part.why}
            for part in self.parts
        ]
        phases = dict(self.phases)
        return {"parts": parts, "phases": phases, "peak": self.peak, "disk": self.disk, "available": self.available}
