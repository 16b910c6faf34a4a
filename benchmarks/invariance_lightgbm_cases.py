"""What `benchmarks.invariance` measures of LightGBM: boosters, objectives, sampling and other options."""

from __future__ import annotations

from typing import Any

from benchmarks.invariance_cases import Case, centred_error, squared_error

_SUMS = "initial score from exact sums"
_HASH = "rows drawn by hash of (seed, round, row)"
_SEEDED = "drawn by the one seed of all workers"
_WHOLE = "groups kept whole"

_BINARY = {"objective": "binary"}
_RANK = {"weight": None, "group": "query"}
_BAGGING: dict[str, Any] = {"bagging_fraction": 0.5, "bagging_freq": 1}


def _boosters() -> list[Case]:
    dart = {"boosting": "dart", "drop_rate": 0.3}
    return [
        Case("gbdt", "booster", {}, made_by=_SUMS),
        Case("gbdt, max_depth", "booster", {"max_depth": 3}, made_by=_SUMS),
        Case(
            "gbdt, num_leaves=255",
            "booster",
            # Workers meet at every split: fewer rounds have as many meetings as other cases.
            {"num_leaves": 255, "min_data_in_leaf": 5, "n_estimators": 3},
            made_by=_SUMS,
        ),
        Case("dart", "booster", dart, made_by=_SUMS),
        Case("dart, uniform_drop", "booster", {**dart, "uniform_drop": True}, made_by=_SUMS),
        Case("dart, skip_drop", "booster", {**dart, "skip_drop": 0.4}, made_by=_SUMS),
        Case("dart, xgboost_dart_mode", "booster", {**dart, "xgboost_dart_mode": True}, made_by=_SUMS),
    ]


_LABELS = {
    "poisson": "claims",
    "mape": "amount",
    "gamma": "amount",
    "tweedie": "claims",
    "binary": "late",
    "multiclass": "grade",
    "multiclassova": "grade",
    "cross_entropy": "share",
    "cross_entropy_lambda": "share",
}


def _objectives() -> list[Case]:
    found = []
    plain = "regression regression_l1 huber fair poisson quantile mape gamma tweedie binary multiclass multiclassova"
    for name in f"{plain} cross_entropy cross_entropy_lambda".split():
        params = {"objective": name} | ({"num_class": 3} if name.startswith("multi") else {})
        made_by = "" if name in {"regression_l1", "quantile", "mape"} else _SUMS
        found.append(Case(name, "objective", params, (_LABELS.get(name, "delay"),), made_by))
    return [
        *found,
        Case("regression, no weights", "objective", {}, made_by=_SUMS, columns={"weight": None}),
        Case("regression, rows without weight", "objective", {}, made_by=_SUMS, columns={"weight": "some_weight"}),
        Case("regression, reg_sqrt", "objective", {"reg_sqrt": True}, ("amount",), _SUMS),
        Case("boost_from_average off", "objective", {"boost_from_average": False}),
        Case("init_score_col", "objective", {}, columns={"base_margin": ("margin",)}),
        Case("a function of each row alone", "objective", {"objective": squared_error}),
        Case("a function of other rows too", "objective", {"objective": centred_error}),
    ]


def _rankings() -> list[Case]:
    def rank(name: str, columns: dict[str, Any] | None = None, **params: Any) -> Case:
        given = {"objective": "lambdarank", **params}
        return Case(name, "ranking", given, ("grade",), _WHOLE, {**_RANK, **(columns or {})})

    return [
        rank("lambdarank"),
        rank("lambdarank, lambdarank_norm off", lambdarank_norm=False),
        rank("lambdarank, lambdarank_truncation_level=3", lambdarank_truncation_level=3),
        rank("lambdarank, weights", {"weight": "weight"}),
        rank("lambdarank, bagging", **_BAGGING),
        rank("rank_xendcg", objective="rank_xendcg"),
    ]


def _samplings() -> list[Case]:
    several = {"objective": "multiclass", "num_class": 3}
    by_class = {"pos_bagging_fraction": 0.7, "neg_bagging_fraction": 0.9, "bagging_freq": 1}
    by_query = {"objective": "lambdarank", "bagging_by_query": True, "bagging_fraction": 0.8, "bagging_freq": 1}
    extra = {"extra_trees": True}
    return [
        Case("bagging", "sampling", _BAGGING, made_by=_HASH),
        Case("bagging, bagging_freq=3", "sampling", {**_BAGGING, "bagging_freq": 3}, made_by=_HASH),
        Case("bagging, no weights", "sampling", _BAGGING, made_by=_HASH, columns={"weight": None}),
        Case("bagging, multiclass", "sampling", {**several, **_BAGGING}, ("grade",), _HASH),
        Case("bagging, dart", "sampling", {"boosting": "dart", "drop_rate": 0.3, **_BAGGING}, made_by=_HASH),
        Case("bagging, regression_l1", "sampling", {"objective": "regression_l1", **_BAGGING}),
        Case("pos_bagging_fraction, neg_bagging_fraction", "sampling", {**_BINARY, **by_class}, ("late",)),
        Case("bagging_by_query", "sampling", by_query, ("grade",), columns=_RANK),
        Case("goss", "sampling", {"data_sample_strategy": "goss", "learning_rate": 0.5}),
        Case("feature_fraction", "sampling", {"feature_fraction": 0.5}, made_by=_SEEDED),
        Case("feature_fraction_bynode", "sampling", {"feature_fraction_bynode": 0.5}, made_by=_SEEDED),
        Case("extra_trees", "sampling", extra, made_by=_SEEDED),
        Case("extra_trees, feature_fraction_bynode", "sampling", {**extra, "feature_fraction_bynode": 0.5},
             made_by=_SEEDED),
        Case("extra_trees, feature_fraction", "sampling", {**extra, "feature_fraction": 0.5}, made_by=_SEEDED),
        Case("extra_trees, feature_fraction, dart", "sampling",
             {"boosting": "dart", "drop_rate": 0.3, **extra, "feature_fraction": 0.5}),
        Case("feature_fraction, dart", "sampling", {"boosting": "dart", "drop_rate": 0.3, "feature_fraction": 0.5},
             made_by=_SEEDED),
    ]  # fmt: skip


def _options() -> list[Case]:
    monotone = {"monotone_constraints": [1, 0, -1, 0, 0, 0]}
    basic = "'basic' is used at any number of workers"
    penalties = [5.0, 1.0, 2.0, 1.0, 1.0, 1.0]
    given: dict[str, dict[str, Any]] = {
        "monotone_constraints, basic": monotone,
        "monotone_penalty": {**monotone, "monotone_penalty": 1.0},
        "path_smooth": {"path_smooth": 10.0},
        "min_data_in_leaf=1": {"min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0.0},
        "min_data_in_leaf=200": {"min_data_in_leaf": 200},
        "lambda_l1, lambda_l2, min_gain_to_split": {"lambda_l1": 0.5, "lambda_l2": 3.0, "min_gain_to_split": 0.1},
        "max_delta_step": {"max_delta_step": 0.3},
        "max_cat_to_onehot=1": {"max_cat_to_onehot": 1, "min_data_per_group": 5},
        "max_cat_threshold=1, cat_smooth, cat_l2": {
            "max_cat_to_onehot": 1, "max_cat_threshold": 1, "cat_smooth": 1.0, "cat_l2": 1.0
        },
        "max_bin=16": {"max_bin": 16},
        "max_bin=512": {"max_bin": 512},
        "use_missing off": {"use_missing": False},
        "feature_contri": {"feature_contri": [0.5, 1.0, 1.0, 1.0, 0.3, 1.0]},
        "cegb_penalty_split": {"cegb_penalty_split": 0.01},
        "cegb_penalty_feature_coupled": {"cegb_penalty_feature_coupled": penalties},
        "cegb_penalty_feature_lazy": {"cegb_penalty_feature_lazy": [penalty / 100 for penalty in penalties]},
    }  # fmt: skip
    return [
        *(Case(name, "option", params) for name, params in given.items()),
        *(
            Case(f"monotone_constraints, {method}", "option", {**monotone, "monotone_constraints_method": method},
                 made_by=basic)
            for method in ("intermediate", "advanced")
        ),
        Case("scale_pos_weight", "option", {**_BINARY, "scale_pos_weight": 3.7}, ("late",)),
        Case("is_unbalance", "option", {**_BINARY, "is_unbalance": True}, ("late",)),
        Case("sigmoid", "option", {**_BINARY, "sigmoid": 2.0}, ("late",)),
    ]  # fmt: skip


def cases() -> tuple[Case, ...]:
    """Return every case, in the order of the table."""
    return (*_boosters(), *_objectives(), *_rankings(), *_samplings(), *_options())
