"""Which options give a model that depends on the number of workers, and what the plan says about them."""

from __future__ import annotations

from shardfit_lightgbm.config import LightGBMConfig

CONSEQUENCE = "; the model depends on the number of workers."
CUSTOM = (
    "A custom objective sees the rows of one worker: unless the gradient of each row depends on that row alone, the "
    "model depends on the number of workers."
)
MONOTONE = (
    "monotone_constraints_method {method!r}: LightGBM has only 'basic' for several machines, and it is used at any "
    "number of workers."
)


def invariance_warnings(config: LightGBMConfig, workers: int) -> tuple[str, ...]:
    """Return a sentence for each option in use that is not exact; see `docs/invariance_lightgbm.md` for by how much.

    Args:
        config: The trainer's configuration.
        workers: Number of workers; with one there is less to warn about.
    """
    found = [MONOTONE.format(method=config.monotone_method)] if config.monotone_method != "basic" else []
    if workers == 1:
        return tuple(found)
    name, params = config.objective.name, config.params
    reasons = []
    if config.objective.averages_leaves:
        reasons.append(f"objective {name!r}: LightGBM averages leaf values over workers, however many rows each has")
    if name == "rank_xendcg":
        reasons.append("objective 'rank_xendcg': each worker draws its own numbers")
    if "goss" in (params.get("boosting"), params.get("data_sample_strategy")):
        reasons.append("goss: each worker chooses and draws among its own rows")
    if config.native_bagging:
        reasons.append("bagging by class or by query: each worker draws its own rows")
    few_features = float(params.get("feature_fraction", 1.0)) < 1.0
    if params.get("extra_trees") and few_features and params.get("boosting") == "dart":
        # Otherwise every round has seeds of its own, so that it does not matter who drew in earlier rounds.
        reasons.append("dart with extra_trees and feature_fraction: whichever worker holds a feature draws for it")
    if any(params.get(name) for name in ("cegb_penalty_feature_coupled", "cegb_penalty_feature_lazy")):
        reasons.append("cegb_penalty_feature_coupled or _lazy: each worker keeps its own account of what has been paid")
    found += [f"{reason}{CONSEQUENCE}" for reason in reasons]
    return (*found, CUSTOM) if config.custom_objective is not None else tuple(found)
