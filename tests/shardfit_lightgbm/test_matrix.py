"""Shards as Datasets: the bins of the whole table, every row once, and whatever shapes shards come in."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardfit.columns import ColumnRoles
from shardfit.data_shape import DataShape
from shardfit.errors import InvalidArgumentError
from shardfit.hookspecs import hookimpl
from shardfit.matrix_reader import MatrixReader
from shardfit.profile import Profile, datasets
from shardfit.registry import Registry
from shardfit_lightgbm import matrix as matrix_module
from shardfit_lightgbm.config import LightGBMConfig, configure
from shardfit_lightgbm.memory import MOST_ROWS
from shardfit_lightgbm.trainer import LightGBMTrainer
from tests.shardfit_lightgbm.training import ROLES, encoded, table, trained, trees_of

XY = ColumnRoles(("x",), ("y",))
# Leaves of single rows, so that whatever can be told apart is.
SHARP = {
    "num_iterations": 40,
    "learning_rate": 0.5,
    "num_leaves": 63,
    "min_data_in_leaf": 1,
    "min_sum_hessian_in_leaf": 0.0,
    "cat_smooth": 0,
    "cat_l2": 0,
    "min_data_per_group": 1,
}


def fitted_values(rows: pa.Table, roles: ColumnRoles, workers: int = 2, **params: Any) -> np.ndarray[Any, Any]:
    result = trained(rows, workers, roles, params={**SHARP, **params})
    return np.asarray(result.model.booster().predict(encoded(result, rows)))


@pytest.mark.parametrize("max_bin", [6, 16, 255, 1000])
def test_a_single_value_far_from_the_others_can_be_split_off(max_bin: int) -> None:
    for far in (1e30, -1e30):
        values = np.random.default_rng(0).normal(size=900)
        values[431] = far
        label = np.zeros(900)
        label[431] = 100.0
        found = fitted_values(pa.table({"x": values, "y": label}), XY, max_bin=max_bin)
        assert found[431] > 50
        assert abs(np.delete(found, 431)).max() < 50


def test_rare_values_beside_a_frequent_one_can_be_told_apart() -> None:
    values = np.zeros(3_000)
    values[::300] = np.arange(1, 11)
    found = fitted_values(pa.table({"x": values, "y": values % 3}), XY)
    np.testing.assert_allclose(found, values % 3, atol=0.2)


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("categories", [3, 99, 101, 253, 254, 255, 256, 700])
def test_every_category_has_a_bin(categories: int, others: bool) -> None:
    rows = 4 * categories
    codes = np.arange(rows) % categories
    random = np.random.default_rng(0)
    for special in (0, categories // 2, categories - 1):
        columns = {"c": [f"k{code:04d}" for code in codes], "y": np.where(codes == special, 9.0, 0.0)}
        columns |= {"x": random.normal(size=rows)} if others else {}
        roles = ColumnRoles(("c", "x") if others else ("c",), ("y",), categorical=("c",))
        found = fitted_values(pa.table(columns), roles, workers=1, num_iterations=10)
        assert found[codes == special].min() > 8
        assert found[codes != special].max() < 1


@pytest.mark.parametrize("workers", [1, 3])
def test_a_category_that_the_sample_has_not_seen_is_learnt(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles: list[Profile] = []
    monkeypatch.setattr(datasets, "MOST_SAMPLE_ROWS", 50)
    monkeypatch.setattr(datasets, "MOST_SAMPLE_BYTES", 400)
    seen = datasets.check_weights
    monkeypatch.setattr(datasets, "check_weights", lambda *given: (profiles.append(given[1]), seen(*given))[1])
    # One row of 20,000 has the rare category.
    codes = np.where(np.arange(20_000) == 7_777, "rare", np.where(np.arange(20_000) % 2, "a", "b"))
    rows = pa.table({"c": codes, "y": np.where(codes == "rare", 100.0, 0.0)})
    found = fitted_values(rows, ColumnRoles(("c",), ("y",), categorical=("c",)), workers, num_iterations=10)
    assert 7_777 not in profiles[0].sample_ids
    assert found[7_777] > 90
    assert abs(np.delete(found, 7_777)).max() < 1


def test_a_category_that_training_has_not_seen_counts_as_missing_where_it_is_measured() -> None:
    rows = table(1_000)
    held = table(300, seed=1)
    shops = np.array(held["shop"].to_pylist(), dtype=object)
    place = held.schema.get_field_index("shop")
    evals = {}
    for name, value in {"new": "never seen", "none": None}.items():
        changed = shops.copy()
        changed[::3] = value
        evals[name] = held.set_column(place, "shop", pa.array(changed, pa.string()))
    result = trained(rows, 2, evals=evals)
    assert result.metrics["new-l2"] == result.metrics["none-l2"]
    # And where it is predicted.
    label = held["delay"].to_numpy().astype(np.float32)
    error = np.mean((result.model.booster().predict(encoded(result, evals["new"])) - label) ** 2)
    assert result.metrics["new-l2"][-1] == pytest.approx(error, rel=1e-12)


def test_missing_values_that_training_has_not_seen_are_measured_as_they_are_predicted() -> None:
    rows, held = table(1_000), table(300, seed=1)
    roles = replace(ROLES, features=("coarse", "margin"), categorical=())
    gaps = held["coarse"].to_numpy().copy()
    gaps[::2] = np.nan
    held = held.set_column(held.schema.get_field_index("coarse"), "coarse", pa.array(gaps, from_pandas=True))
    result = trained(rows, 2, roles, evals={"held": held})
    error = np.mean((result.model.booster().predict(encoded(result, held)) - held["delay"].to_numpy()) ** 2)
    assert result.metrics["held-l2"][-1] == pytest.approx(error, rel=1e-6)


def test_what_is_measured_in_training_is_what_the_booster_predicts() -> None:
    rows = table(1_500)
    for roles in (ROLES, replace(ROLES, weight="weight")):
        result = trained(rows, 3, roles, evals={"same": rows}, params={"num_leaves": 60})
        errors = (result.model.booster().predict(encoded(result, rows)) - rows["delay"].to_numpy()) ** 2
        weights = None if roles.weight is None else rows["weight"].to_numpy()
        assert result.metrics["same-l2"][-1] == pytest.approx(np.average(errors, weights=weights), rel=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:.*no meaningful features")
def test_columns_that_say_nothing_are_no_obstacle(workers: int) -> None:
    rows = table(600)
    nothing = {"five": np.full(600, 5.0), "zero": np.zeros(600), "none": pa.nulls(600, pa.float64())}
    for name, values in nothing.items():
        rows = rows.append_column(name, pa.array(values))
    some = replace(ROLES, features=("five", "drift", "none", "zero"), categorical=())
    alone = trained(rows, 1, replace(some, features=("drift",)))
    assert (
        trained(rows, workers, some)
        .model.booster()
        .predict(np.column_stack([np.full(3, 5.0), [1.0, 5.0, np.nan], np.full(3, np.nan), np.zeros(3)]))
        .tolist()
        == alone.model.booster().predict(np.array([[1.0], [5.0], [np.nan]])).tolist()
    )
    none = replace(ROLES, features=("five", "none", "zero"), categorical=())
    only = trained(rows, workers, none)
    mean = rows["delay"].to_numpy().astype(np.float32).mean(dtype=np.float64)
    np.testing.assert_allclose(only.model.booster().predict(np.ones((2, 3))), mean, rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_fewer_rows_than_workers_are_enough(rows: int) -> None:
    few = table(100).slice(0, rows)
    held = table(100, seed=1)
    results = [trained(few, workers, evals={"held": held, "one": held.slice(0, 1)}) for workers in (1, 4)]
    for result in results:
        assert result.coverage["train"].library_rows == rows
        assert result.coverage["one"].library_rows == 1
        assert result.model.text == results[0].model.text
        assert result.metrics == results[0].metrics


@pytest.mark.parametrize("starts", [[0], [0, 499], [0, 1], [0, 100, 101, 499]], ids=str)
def test_groups_of_any_size_stay_whole(starts: list[int]) -> None:
    rows = table(500)
    query = np.zeros(500, dtype=np.int64)
    query[starts[1:]] = 1
    rows = rows.set_column(rows.schema.get_field_index("query"), "query", pa.array(np.cumsum(query)))
    roles = replace(ROLES, label=("grade",), group="query")
    results = [
        trained(rows, workers, roles, params={"objective": "lambdarank"}, evals={"same": rows}) for workers in (1, 3)
    ]
    assert results[1].plan.layout.workers <= 3
    for result in results:
        assert result.coverage["train"].exact
        # Where there is one group only, there is one machine only, at any number of workers.
        assert trees_of(result) == trees_of(results[0])
        assert result.metrics == results[0].metrics


class Spy(LightGBMTrainer):
    """Keeps what `ingest` returned, and references to the batches that it was given."""

    seen: list[Any]
    batches: list[Any]

    def ingest(
        self, context: Any, dataset: str, reader: MatrixReader, reference: Any, config: LightGBMConfig
    ) -> matrix_module.ShardMatrix:
        batches, kept = reader.batches, self.batches

        def watched(**how: Any) -> Any:
            for batch in batches(**how):
                kept.append(weakref.ref(batch.features))
                yield batch
                del batch

        reader.batches = watched  # type: ignore[method-assign]
        found = super().ingest(context, dataset, reader, reference, config)
        self.seen.append((dataset, context.rank, found))
        gc.collect()
        self.alive = sum(ref() is not None for ref in kept)
        return found


def spied(rows: pa.Table, workers: int, roles: ColumnRoles = ROLES, **changes: Any) -> Spy:
    spy = Spy()
    spy.seen, spy.batches = [], []

    class Provider:
        @hookimpl
        def shardfit_trainers(self) -> dict[str, Any]:
            return {"spy": lambda: spy}

    registry = Registry()
    registry.register(Provider())
    trained(rows, workers, roles, trainer="spy", registry=registry, **changes)
    return spy


def test_the_second_machine_holds_the_first_row_or_the_first_group() -> None:
    rows = table(500)
    ((_, _, plain),) = spied(rows, 1).seen
    assert (plain.first.num_data(), plain.data.num_data()) == (1, 499)
    group = int((rows["query"].to_numpy() == rows["query"][0].as_py()).sum())
    roles = replace(ROLES, label=("grade",), group="query")
    ((_, _, grouped),) = spied(rows, 1, roles, params={"objective": "lambdarank"}).seen
    assert (grouped.first.num_data(), grouped.data.num_data()) == (group, 500 - group)
    assert grouped.groups[[0, 1, -1]].tolist() == [0, group, 500]
    # Where LightGBM averages leaf values over machines, there is one.
    ((_, _, averaging),) = spied(rows, 1, params={"objective": "l1"}).seen
    assert averaging.first is None
    assert all(matrix.first is None for _, _, matrix in spied(rows, 2).seen)


def test_a_worker_holds_no_batch_once_its_rows_are_binned() -> None:
    spy = spied(table(1_000), 1, evals={"held": table(300, seed=1)})
    assert len(spy.batches) >= 2
    assert spy.alive == 0
    assert all(matrix.data.data is None for _, _, matrix in spy.seen)


def test_shards_that_lightgbm_cannot_count_are_refused_by_the_plan() -> None:
    trainer, config = LightGBMTrainer(), configure({})
    trainer.check_shape(config, DataShape(MOST_ROWS, MOST_ROWS, 4))
    for shape in (DataShape(MOST_ROWS + 1, 3 * MOST_ROWS, 4), DataShape(10, 3 * MOST_ROWS, 4, MOST_ROWS + 1)):
        with pytest.raises(InvalidArgumentError, match="Use 3 workers or more"):
            trainer.check_shape(config, shape)
