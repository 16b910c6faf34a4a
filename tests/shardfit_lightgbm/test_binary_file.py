"""Binary files that shardfit writes: the bytes that LightGBM writes once it has binned the same rows itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.binned_trainer import BinReference
from shardfit.casts import ColumnCast
from shardfit.category_map import CategoryMap
from shardfit.columns import ColumnRoles
from shardfit.errors import PluginError
from shardfit.matrix_reader import MatrixSpec
from shardfit.trainer import RunSettings
from shardfit_lightgbm import binary_layout, memory_file
from shardfit_lightgbm.binary_file import load
from shardfit_lightgbm.binary_layout import BinaryLayout
from shardfit_lightgbm.config import configure
from shardfit_lightgbm.matrix import LibraryReference, open_reference

Matrix = npt.NDArray[np.float32]
# What cut points may lie at: the ends of float32, both sides of what LightGBM takes for zero, halves.
POINTS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1e-36, 1e-34, -1e-34, 1.0, 3.4e38, -3.4e38]),
    st.integers(-5, 5).map(lambda number: number / 2),
)
NUMBERS = st.tuples(st.lists(POINTS, max_size=40), st.booleans(), st.just(False))
CATEGORIES = st.tuples(
    st.integers(1, 300).map(lambda count: [float(code) for code in range(count)]), st.booleans(), st.just(True)
)


def opened(
    features: list[tuple[list[float], bool, bool]], max_bin: int = 255, use_missing: bool = True
) -> LibraryReference:
    """Return the reference of features: of each its cut points, whether it is ever missing, is categorical."""
    names = tuple(f"f{j}" for j in range(len(features)))
    kinds = tuple(
        ColumnCast(name, "float", "category" if categorical else "number")
        for name, (_, _, categorical) in zip((*names, "y"), (*features, ([], False, False)), strict=True)
    )
    maps = {
        name: CategoryMap(name, tuple(range(len(points))))
        for name, (points, _, categorical) in zip(names, features, strict=True)
        if categorical
    }
    spec = MatrixSpec(ColumnRoles(names, ("y",)), kinds, maps, max_bin)
    points = tuple(np.unique(np.array(points, dtype=np.float32)) for points, _, _ in features)
    has_missing = tuple(missing for _, missing, _ in features)
    config = replace(configure({"max_bin": max_bin, "use_missing": use_missing}), has_missing=has_missing)
    return open_reference(BinReference(spec, points, {}), config, RunSettings(spec.roles))


def parts(data: Any) -> list[bytes]:
    """Return the header, the metadata and the features of the file that LightGBM writes of a Dataset."""
    with TemporaryDirectory() as folder:
        data.save_binary(Path(folder) / "data.bin")
        content = (Path(folder) / "data.bin").read_bytes()
    found, end = [], 40
    while end < len(content):
        size = int.from_bytes(content[end : end + 8], "little")
        found.append(content[end + 8 : end + 8 + size])
        end += 8 + size
    return found


@dataclass(frozen=True)
class Rows:
    """Rows of a matrix, by their columns."""

    values: Matrix

    def __len__(self) -> int:
        return len(self.values)

    def column(self, feature: int, start: int, stop: int) -> Matrix:
        return np.ascontiguousarray(self.values[start:stop, feature])


def check(reference: LibraryReference, values: Matrix, batch: int = 63, threads: int = 2) -> None:
    batches = (Rows(values[first : first + batch]) for first in range(0, len(values), batch))
    loaded = load(reference.layout, len(values), batches, reference.data, reference.params, threads)
    label = np.zeros(len(values), dtype=np.float32)
    pushed = lgb.Dataset(values, label, params=dict(reference.params), reference=reference.data).construct()
    assert loaded.num_data() == len(values)
    # Of the header, LightGBM keeps the most bins of each feature in a Dataset that it reads, and not in one that shares
    # the bins of another.
    assert parts(loaded)[1:] == parts(pushed)[1:]


def rows_of(features: list[tuple[list[float], bool, bool]], rows: int, seed: int) -> Matrix:
    """Return rows at, beside and between the cut points, and some that are missing; categories that are known."""
    random = np.random.default_rng(seed)
    columns = []
    for points, _, categorical in features:
        near = np.array(points or [0.0], dtype=np.float32)
        if not categorical:
            sides = [np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)]
            near = np.concatenate([near, *sides, random.normal(size=9).astype(np.float32), np.float32([0.0, -0.0])])
            near = near[np.isfinite(near)]
        columns.append(np.append(near, np.float32(np.nan))[random.integers(0, len(near) + 1, rows)])
    return np.ascontiguousarray(np.stack(columns, axis=1))


@pytest.mark.filterwarnings("ignore:.*no meaningful features")
@given(
    st.lists(st.one_of(NUMBERS, CATEGORIES), min_size=1, max_size=5),
    st.integers(1, 300),
    st.sampled_from([2, 15, 16, 255, 256, 1000]),
    st.integers(0, 2**32),
)
def test_a_file_has_the_bytes_that_lightgbm_writes(
    features: list[tuple[list[float], bool, bool]], rows: int, max_bin: int, seed: int
) -> None:
    # The profile gives no more cut points than there are bins for; categories have bins of their own.
    features = [
        (points if categorical else points[: max_bin - 2], missing, categorical)
        for points, missing, categorical in features
    ]
    check(opened(features, max(max_bin, 3)), rows_of(features, rows, seed))


@pytest.mark.parametrize("features", [1, 33, 70])
@pytest.mark.parametrize("max_bin", [15, 255, 1000])
def test_batches_of_several_tiles(features: int, max_bin: int) -> None:
    random = np.random.default_rng(0)
    points = [(random.normal(size=max_bin - 2).tolist(), j % 2 == 0, False) for j in range(features)]
    values = random.normal(size=(20_001, features)).astype(np.float32)
    values[random.random(values.shape) < 0.1] = np.nan
    values = values if features % 2 else np.asfortranarray(values)
    check(opened(points, max_bin), values, batch=8_201, threads=3)


def test_a_file_whose_memory_goes_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_file, "_EVERY_SECONDS", 0)
    random = np.random.default_rng(0)
    reference = opened([(random.normal(size=253).tolist(), False, False)] * 40)
    check(reference, np.asfortranarray(random.normal(size=(200_000, 40)).astype(np.float32)), batch=50_000)


def test_rows_that_are_fewer_or_more_than_were_said_are_refused() -> None:
    reference = opened([([1.0, 2.0], False, False)])
    for said in (4, 6):
        with pytest.raises(ValueError, match=f"5 rows came of {said}"):
            load(reference.layout, said, [Rows(np.ones((5, 1), np.float32))], reference.data, reference.params, 1)


def test_another_kind_of_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = opened([([1.0, 2.0], False, False)])
    monkeypatch.setattr(binary_layout, "_TOKEN", b"another token")
    with pytest.raises(PluginError, match=r"it begins otherwise.*Install the version"):
        BinaryLayout.of(reference.data, reference.params)


def test_features_that_are_stored_sparsely_are_refused() -> None:
    params: dict[str, Any] = {
        "verbosity": -1,
        "enable_bundle": False,
        "min_data_in_bin": 1,
        "feature_pre_filter": False,
    }
    data = lgb.Dataset(np.array([[5.0]] * 99 + [[6.0]]), np.zeros(100), params=params).construct()
    with pytest.raises(PluginError, match="not stored one by one and densely"):
        BinaryLayout.of(data, params)


@pytest.mark.filterwarnings("ignore:.*no meaningful features")
@pytest.mark.parametrize("max_bin", [2, 3, 255])
@pytest.mark.parametrize("use_missing", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_few_values_are_stored_densely(max_bin: int, use_missing: bool, missing: bool) -> None:
    tiny = float(np.nextafter(np.float32(1e-35), np.float32(0)))
    numbers = [[], [3.0], [5.0, 6.0], [0.0, 1.0], [-2.0, -1.0], [-tiny, 1e-35], [-1e-35, tiny]]
    categories = [[], [0.0], [0.0, 1.0]]
    for most in (1, 2, 3, 10):
        features = [
            *((points, missing, False) for points in numbers),
            *((points, missing, True) for points in categories),
            ([float(code) for code in range(most)], False, True),
        ]
        for some in ([feature] for feature in features) if most == 1 else [features]:
            check(opened(some, max_bin, use_missing=use_missing), rows_of(some, 300, most))
