"""Imports XGBoost without scikit-learn where the process belongs to a worker alone: 50 to 70 MB and a second less.

XGBoost offers scikit-learn estimators where it can import it, and goes on without where it cannot. Workers make none.
"""

from shardfit.dedicated_process import doing_without, is_dedicated


def import_lean() -> None:
    """Import XGBoost if this is a worker's own process; else leave that to whoever needs it, with all it can do."""
    if is_dedicated():
        with doing_without("sklearn"):
            import xgboost  # noqa: F401
