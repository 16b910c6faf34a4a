"""Which options give a model that depends on the number of workers, and what the plan says about them."""

from __future__ import annotations

from shardfit_xgboost.config import XGBConfig

CONSEQUENCE = "; the model depends on the number of workers."
CUSTOM = (
    "A custom objective sees the rows of one worker: unless the gradient of each row depends on that row alone, the "
    "model depends on the number of workers."
)


def invariance_warnings(config: XGBConfig, workers: int, weighted: bool = False) -> tuple[str, ...]:
    """Return a sentence for each option in use that is not exact; see `docs/invariance.md` for by how much.

    Args:
        config: The trainer's configuration.
        workers: Number of workers; with one there is nothing to warn about.
        weighted: Whether there is a weight column.
    """
    if workers == 1:
        return ()
    name, params = config.objective.name, config.params
    found = []
    if config.objective.averages_leaves:
        found.append(f"objective {name!r}: XGBoost averages leaf values over workers, however many rows each has")
    if params.get("lambdarank_pair_method") == "mean" and config.objective.ranks:
        found.append("lambdarank_pair_method 'mean': pairs are drawn by each worker's own generator")
    if params.get("lambdarank_unbiased") and config.objective.ranks:
        found.append("lambdarank_unbiased: position biases are estimated by each worker from its own groups")
    if config.native_subsample:
        found.append("subsample with num_parallel_tree or ranking: rows are drawn by each worker's own generator")
    if config.objective.ranks and weighted:
        found.append("weights of groups: XGBoost divides them by their average on each worker")
    sentences = [f"{reason}{CONSEQUENCE}" for reason in found]
    return (*sentences, CUSTOM) if config.custom_objective is not None else tuple(sentences)
