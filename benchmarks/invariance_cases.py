"""What `benchmarks.invariance` measures: boosters, objectives, sampling and other options of the XGBoost plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from shardfit.columns import ColumnRoles
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit_xgboost.gradients import LOG_LINK

Kind = Literal["booster", "objective", "ranking", "sampling", "option"]

_SUMS = "initial score from exact sums"
_HASH = "rows drawn by hash of (seed, round, row)"
_SEEDED = "columns drawn by the one seed of all workers"
_WHOLE = "groups kept whole"
_GRID = "gradients rounded to a common grid"


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        name: What it is called there.
        kind: Its part of the table.
        params: The trainer's parameters.
        label: Label columns.
        made_by: What shardfit does to make it exact; empty where XGBoost's own sums are exact enough.
        columns: Changes to the column roles.
    """

    name: str
    kind: Kind
    params: Mapping[str, Any]
    label: tuple[str, ...] = ("delay",)
    made_by: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def roles(self) -> ColumnRoles:
        """The column roles."""
        roles: dict[str, Any] = {"weight": "weight", "categorical": CATEGORICAL, "features": FEATURES, **self.columns}
        return ColumnRoles(label=self.label, **roles)


def invariance_table(rows: int, seed: int = 0) -> pa.Table:
    """Return `awkward_table` with labels for every objective, a base margin, and a column that marks missing by -999.

    Args:
        rows: Number of rows.
        seed: Of the generator.
    """
    table = awkward_table(rows, seed)
    delay = table["delay"].to_numpy()
    marked = table["drift"].to_pandas().fillna(-999).to_numpy()
    group_weights = np.random.default_rng(seed).random(int(table["query"][-1].as_py()) + 1) + 0.1
    weights = table["weight"].to_numpy()
    more = {
        "group_weight": group_weights[table["query"].to_numpy()],
        "some_weight": np.where(weights < 0.4, 0, weights),
        "amount": np.exp(delay / 3),
        "claims": np.maximum(np.floor(delay), 0),
        "share": 1 / (1 + np.exp(-delay)),
        "margin": np.nan_to_num(table["normal"].to_numpy()),
        "marked": marked,
    }
    for name, values in more.items():
        table = table.append_column(name, pa.array(values.astype(np.float32)))
    return table


def centred_error(predictions: Any, data: Any) -> tuple[Any, Any]:
    """Return gradients that depend on the average of this worker's rows: a custom objective that is not exact."""
    return predictions - data.get_label() + (predictions - predictions.mean()), np.ones_like(predictions)


def squared_error(predictions: Any, data: Any) -> tuple[Any, Any]:
    """Return the gradients of half the squared error: a custom objective."""
    return predictions - data.get_label(), np.ones_like(predictions)


_BINARY = {"objective": "binary:logistic"}
_NUMERIC = {"features": FEATURES[:4], "categorical": ()}
_RANK = {"weight": None, "group": "query"}


def _boosters() -> list[Case]:
    dart = {"booster": "dart", "rate_drop": 0.3}
    return [
        Case("gbtree, depthwise", "booster", {}),
        Case("gbtree, lossguide", "booster", {"grow_policy": "lossguide", "max_leaves": 17, "max_depth": 0}),
        Case("gbtree, num_parallel_tree", "booster", {"num_parallel_tree": 3, "colsample_bynode": 0.5}),
        *(
            Case(
                f"dart, {sample}, {normalize}", "booster", {**dart, "sample_type": sample, "normalize_type": normalize}
            )
            for sample in ("uniform", "weighted")
            for normalize in ("tree", "forest")
        ),
        Case("dart, one_drop, skip_drop", "booster", {**dart, "one_drop": True, "skip_drop": 0.4}),
        Case(
            "multi_output_tree",
            "booster",
            {"multi_strategy": "multi_output_tree"},
            ("delay", "amount"),
            columns=_NUMERIC,
        ),
        Case("one_output_per_tree", "booster", {}, ("delay", "amount")),
    ]


_LABELS: Mapping[str, tuple[str, ...]] = {
    "reg:squaredlogerror": ("amount",),
    "reg:logistic": ("share",),
    "reg:gamma": ("amount",),
    "reg:tweedie": ("claims",),
    "count:poisson": ("claims",),
    "binary:logistic": ("late",),
    "binary:logitraw": ("late",),
    "binary:hinge": ("late",),
    "multi:softmax": ("grade",),
    "multi:softprob": ("grade",),
}


def _objectives() -> list[Case]:
    plain = "reg:squarederror reg:squaredlogerror reg:logistic reg:pseudohubererror reg:gamma reg:tweedie count:poisson"
    plain += " binary:logistic binary:logitraw binary:hinge multi:softmax multi:softprob"
    found = []
    for name in plain.split():
        params = {"objective": name} | ({"num_class": 3} if name.startswith("multi:") else {})
        made_by = f"{_SUMS}; {_GRID}" if name in LOG_LINK else "" if name == "binary:hinge" else _SUMS
        found.append(Case(name, "objective", params, _LABELS.get(name, ("delay",)), made_by))
    absolute, quantile = {"objective": "reg:absoluteerror"}, {"objective": "reg:quantileerror"}
    return [
        *found,
        Case("reg:squarederror, no weights", "objective", {}, columns={"weight": None}, made_by=_SUMS),
        Case("reg:absoluteerror", "objective", absolute),
        Case("reg:quantileerror", "objective", {**quantile, "quantile_alpha": 0.7}),
        Case("reg:quantileerror, several levels", "objective", {**quantile, "quantile_alpha": [0.2, 0.5, 0.9]}),
        Case("a function of each row alone", "objective", {"objective": squared_error}, made_by=_GRID),
        Case("a function of other rows too", "objective", {"objective": centred_error}),
        Case("rows without weight", "objective", {}, columns={"weight": "some_weight"}, made_by=_SUMS),
        Case(
            "multi:softprob, rows without weight",
            "objective",
            {"objective": "multi:softprob", "num_class": 3},
            ("grade",),
            f"{_SUMS}; {_GRID}",
            {"weight": "some_weight"},
        ),
        Case("base_margin", "objective", {}, columns={"base_margin": ("margin",)}, made_by=_SUMS),
        Case("base_score given", "objective", {"base_score": 0.25}),
    ]


def _rankings() -> list[Case]:
    def rank(name: str, *, label: str = "grade", **params: Any) -> Case:
        return Case(name, "ranking", params, (label,), _WHOLE, _RANK)

    ndcg: dict[str, Any] = {"objective": "rank:ndcg"}
    mean: dict[str, Any] = {"lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": 2}
    return [
        rank("rank:ndcg", **ndcg),
        rank("rank:map", label="late", objective="rank:map"),
        rank("rank:pairwise", objective="rank:pairwise"),
        rank("rank:ndcg, topk of 3 pairs", **ndcg, lambdarank_num_pair_per_sample=3),
        rank("rank:ndcg, lambdarank_normalization off", **ndcg, lambdarank_normalization=False),
        rank("rank:ndcg, pair method mean", **ndcg, **mean),
        rank("rank:pairwise, pair method mean", objective="rank:pairwise", **mean),
        rank("rank:ndcg, lambdarank_unbiased", label="late", **ndcg, lambdarank_unbiased=True),
        rank("rank:ndcg, subsample", **ndcg, subsample=0.5),
        Case("rank:ndcg, weights", "ranking", ndcg, ("grade",), columns={**_RANK, "weight": "group_weight"}),
    ]


def _samplings() -> list[Case]:
    return [
        Case("subsample", "sampling", {**_BINARY, "subsample": 0.5}, ("late",), _HASH),
        Case("subsample, multi:softprob", "sampling", {"objective": "multi:softprob", "num_class": 3, "subsample": 0.5},
             ("grade",), f"{_HASH}; {_GRID}"),
        Case("subsample, a function as objective", "sampling", {"objective": squared_error, "subsample": 0.5},
             made_by=_HASH),
        Case("subsample, dart", "sampling", {"booster": "dart", "rate_drop": 0.3, "subsample": 0.5}, made_by=_HASH),
        Case("subsample, num_parallel_tree", "sampling", {"subsample": 0.5, "num_parallel_tree": 3}),
        Case("colsample_bytree", "sampling", {"colsample_bytree": 0.5}, made_by=_SEEDED),
        Case("colsample_bylevel", "sampling", {"colsample_bylevel": 0.5}, made_by=_SEEDED),
        Case("colsample_bynode", "sampling", {"colsample_bynode": 0.5}, made_by=_SEEDED),
    ]  # fmt: skip


def _options() -> list[Case]:
    names = ("marked", *FEATURES[1:])
    return [
        Case("monotone_constraints", "option", {"monotone_constraints": {"normal": 1, "drift": -1}}),
        Case(
            "interaction_constraints", "option", {"interaction_constraints": [["drift", "shop"], ["normal", "coarse"]]}
        ),
        Case("max_cat_to_onehot=1", "option", {"max_cat_to_onehot": 1}),
        Case("max_cat_to_onehot=10", "option", {"max_cat_to_onehot": 10}),
        Case("max_cat_threshold=2", "option", {"max_cat_threshold": 2, "max_cat_to_onehot": 1}),
        Case("scale_pos_weight", "option", {**_BINARY, "scale_pos_weight": 3.7}, ("late",)),
        Case("max_delta_step", "option", {**_BINARY, "max_delta_step": 0.7}, ("late",)),
        Case("reg_alpha, min_split_loss", "option", {"reg_alpha": 0.5, "min_split_loss": 0.1, "min_child_weight": 5}),
        Case("max_bin=16", "option", {"max_bin": 16}),
        Case("max_bin=512", "option", {"max_bin": 512}),
        Case("missing=-999", "option", {"missing": -999.0}, columns={"features": names}),
        Case(
            "tweedie_variance_power", "option", {"objective": "reg:tweedie", "tweedie_variance_power": 1.2}, ("claims",)
        ),
        Case("huber_slope", "option", {"objective": "reg:pseudohubererror", "huber_slope": 0.3}),
    ]


def cases() -> tuple[Case, ...]:
    """Return every case, in the order of the table."""
    return (*_boosters(), *_objectives(), *_rankings(), *_samplings(), *_options())
