"""What must hold of the labels of a whole dataset, whatever the library: in range, and of two classes."""

from __future__ import annotations

import math

from shardfit.errors import InvalidValueError
from shardfit.profile.summary import Profile


def check_label_range(objective: str | None, dataset: str, profile: Profile, wanted: str | None) -> None:
    """Check that labels can be measured with an objective.

    Args:
        objective: Its name in the library.
        dataset: Whose labels.
        profile: Of the whole dataset.
        wanted: What the labels must be, if they are not.

    Raises:
        InvalidValueError: They are not; names the objective, the dataset and what was found.
    """
    if wanted is None:
        return
    fraction = "" if math.isnan(profile.label_fraction) else f", among them {profile.label_fraction!r}"
    found = f"found labels from {profile.label_minimum!r} to {profile.label_maximum!r}{fraction}"
    raise _bad_labels(objective, dataset, found, f"They must be {wanted}.")


def check_two_classes(objective: str | None, dataset: str, profile: Profile) -> None:
    """Check that the labels of a training table are of more than one class.

    Raises:
        InvalidValueError: They are all the same.
    """
    distinct = profile.label_values
    if distinct.complete and len(distinct.values) < 2:
        found = f"found one class only, {profile.label_minimum!r}, in {profile.rows:,} rows"
        raise _bad_labels(objective, dataset, found, "Training needs at least two.")


def _bad_labels(objective: str | None, dataset: str, found: str, advice: str) -> InvalidValueError:
    return InvalidValueError(f"checking the labels of dataset {dataset!r} for {objective!r}", found, advice)
