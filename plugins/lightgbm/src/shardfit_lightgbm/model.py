"""A trained model: a plain LightGBM booster, and what it takes to feed it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from shardfit.errors import ArtifactCorruptError, InvalidValueError
from shardfit.matrix_reader import MatrixSpec
from shardfit.saved_spec import predictions_as_arrow, spec_from_values, spec_to_values
from shardfit_lightgbm.objectives import ObjectiveFacts

# What LightGBM writes down of where a model was trained.
_WHERE = {"num_machines": "1", "num_threads": "0", "tree_learner": "serial"}

_SIZES = re.compile(r"^tree_sizes=(.*)\n", re.MULTILINE)
_UNSPLIT = re.compile(r"^(num_leaves=1\n(?:.+\n)*?leaf_count=)\d+$", re.MULTILINE)

MODEL_FILE = "model.txt"
FEATURES_FILE = "features.json"


@dataclass(frozen=True, eq=False)
class LightGBMModel:
    """A trained model. `booster()` gives the library's own object.

    Args:
        text: The booster in LightGBM's text form.
        spec: How rows become the matrix that the booster predicts from.
        objective: LightGBM's name of the objective, or empty for a function of the user's.
        history: Dataset -> metric -> value after each round.
        best_round: Last round that predictions use.
    """

    text: str = field(repr=False)
    spec: MatrixSpec
    objective: str
    history: Mapping[str, Mapping[str, list[float]]]
    best_round: int

    def booster(self) -> Any:
        """Return a new `lightgbm.Booster`."""
        booster = lgb.Booster(model_str=self.text)
        booster.best_iteration = self.best_round + 1
        return booster

    def predict(self, booster: Any, records: pa.RecordBatch) -> pa.Array:
        """Return one prediction for each row: a float64, or a list of fixed size where the model has several outputs.

        Initial scores that a column gave in training are not added, as in LightGBM itself.

        Raises:
            InvalidValueError: A feature is infinite.
        """
        features = self.spec.encode(records)
        for name, column in zip(self.spec.roles.features, features.T, strict=True):
            if np.isinf(column).any():
                raise InvalidValueError(
                    f"predicting from column {name!r}",
                    "found an infinite value, or one beyond float32",
                    "Filter or fill such rows before predicting.",
                )
        return predictions_as_arrow(booster.predict(features, num_iteration=self.best_round + 1))

    def files(self) -> dict[str, bytes]:
        """Return the files that hold the model: `model.txt`, which LightGBM loads alone, and `features.json`."""
        features = {
            "objective": self.objective,
            **spec_to_values(self.spec),
            "history": self.history,
            "best_round": self.best_round,
        }
        return {MODEL_FILE: self.text.encode(), FEATURES_FILE: json.dumps(features, indent=1).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> LightGBMModel:
        """Return the model that `files` wrote.

        Raises:
            ArtifactCorruptError: A file is missing or cannot be read.
        """
        try:
            read = json.loads(files[FEATURES_FILE])
            spec, text = spec_from_values(read), files[MODEL_FILE].decode()
            return cls(text, spec, read["objective"], read["history"], read["best_round"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactCorruptError("loading a LightGBM model", repr(error), "Train or fetch it again.") from error


def with_objective(text: str, objective: ObjectiveFacts) -> str:
    """Return the text of a booster that was given its gradients as if LightGBM had found them itself."""
    named = text.replace("\nfeature_names=", f"\nobjective={objective.line}\nfeature_names=", 1)
    return named.replace("\n[objective: custom]\n", f"\n[objective: {objective.name}]\n", 1)


def text_with_start(booster: Any, initial_scores: Sequence[float], rows: int) -> str:
    """Return a booster in text form, the scores that its rows started from added to the leaves of its first trees.

    So does LightGBM itself with `boost_from_average`. The text does not say on how many machines it was trained.

    Args:
        booster: Trained on rows that started from `initial_scores`; stays as it is.
        initial_scores: One for each class, or none for 0.
        rows: Of the whole training data: a tree that could not be split counts those of one machine.
    """
    text = _counted(_nowhere(str(booster.model_to_string(num_iteration=-1))), rows)
    if not any(initial_scores):
        return text
    # Only the first trees are read, changed and written again: the others are most of the text.
    first = _counted(_nowhere(str(booster.model_to_string(num_iteration=1))), rows)
    copied = lgb.Booster(model_str=first)
    leaves = [tree["num_leaves"] for tree in copied.dump_model(num_iteration=1)["tree_info"]]
    for tree, (count, start) in enumerate(zip(leaves, initial_scores, strict=True)):
        for leaf in range(count):
            copied.set_leaf_output(tree, leaf, copied.get_leaf_output(tree, leaf) + start)
    return _with_first_trees(text, str(copied.model_to_string(num_iteration=-1)))


def _nowhere(text: str) -> str:
    """Return the text of a booster without where it was trained, which stands after its trees."""
    trees, mark, rest = text.rpartition("\nparameters:\n")
    for name, value in _WHERE.items():
        rest = re.sub(rf"^\[{name}: [^\]]*\]$", f"[{name}: {value}]", rest, flags=re.MULTILINE)
    return trees + mark + rest


def _counted(text: str, rows: int) -> str:
    """Return the text of a booster where trees that could not be split count the rows of all machines."""
    if "\nnum_leaves=1\n" not in text:
        return text
    counted = _UNSPLIT.sub(rf"\g<1>{rows}", text)
    if counted == text:
        return text
    # Without their sizes, the trees are read one after another.
    copied = lgb.Booster(model_str=_SIZES.sub("", counted, count=1))
    return str(copied.model_to_string(num_iteration=-1))


def _with_first_trees(text: str, first: str) -> str:
    """Return the text of a booster, its first trees taken from that of another."""
    head, mark, trees = text.partition("\nTree=0\n")
    sizes, sizes_of_first = (_SIZES.findall(content.partition(mark)[0])[0].split() for content in (text, first))
    count = len(sizes_of_first)
    sizes = " ".join([*sizes_of_first, *sizes[count:]])
    head = _SIZES.sub(f"tree_sizes={sizes}\n", head, count=1)
    next_one = f"Tree={count}\n" if f"\nTree={count}\n" in trees else "end of trees\n"
    rest = trees.partition("\n" + next_one)[2]
    return head + mark + first.partition(mark)[2].partition("end of trees\n")[0] + next_one + rest
