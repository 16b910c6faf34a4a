"""Where in the order of the rows a training loop is: a frozen value that goes to and from JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from shardfit.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class Deal:
    """How the rows that were left of an epoch were cut into steps, and how many of those were taken.

    Args:
        rows_per_step: Rows of a step: of all ranks together, or of each of them where `ranks` is given.
        ranks: Number of ranks where each took rows of a range of its own; 0 where the rows of a step do not depend on
            the number of ranks.
        rows: Rows that were cut; what was left out of the epoch does not count.
        steps: Steps that the loop has consumed.
    """

    rows_per_step: int
    ranks: int
    rows: int
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """The epoch and the steps of it that the loop has consumed; what was only decoded ahead does not count.

    The same on every rank, since all take the same steps.

    Args:
        epoch: 0 or more.
        steps: Steps of the epoch that the loop has consumed, in all.
        rows: Rows of the table, which must be the same when the order is continued.
        order: What names the order: `shuffled 0 7` is the shuffle of seeds 0 and 7, `table` the order of the table.
        deals: How the epoch was dealt so far; more than one where it was continued at another number of ranks.
    """

    epoch: int = 0
    steps: int = 0
    rows: int = 0
    order: str = "table"
    deals: tuple[Deal, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values for JSON; `from_json` gives an equal position."""
        return {**asdict(self), "deals": [asdict(deal) for deal in self.deals]}

    @classmethod
    def from_json(cls, value: dict[str, Any] | str) -> Position:
        """Return the position that `to_json` wrote, from its values or from their JSON text.

        Raises:
            InvalidArgumentError: The value is no position.
        """
        try:
            fields: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
            deals = tuple(Deal(**deal) for deal in fields["deals"])
            return cls(**{**fields, "deals": deals})
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidArgumentError(
                "reading a position of a dataset", f"found {value!r:.200}", "Pass what Position.to_json() returned."
            ) from error
