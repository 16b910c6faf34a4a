"""Mistakes that were made once: each with data that brings it out."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from shardfit.category_map import distinct_categories
from shardfit.errors import InvalidValueError
from shardfit.profile import LARGEST_EXACT_INTEGER, Profile, ProfileBuilder, SampleSpec
from shardfit.profile.cut_points import choose_cut_points
from shardfit.sources.file_listing import _Finder


def profile_of(values: np.ndarray, spec: SampleSpec, integers: tuple[int, ...] = ()) -> Profile:
    builder = ProfileBuilder(1, 1, 0, spec)
    builder.add_features(np.arange(len(values)), [np.asarray([values], dtype=np.float32)], None, integers)
    builder.add_labels(np.arange(len(values)), np.zeros(len(values), dtype=np.float32))
    return builder.build()


def test_the_first_whole_number_that_float32_can_not_tell_apart_is_counted() -> None:
    values = np.array([LARGEST_EXACT_INTEGER + 1, 5])
    assert profile_of(values, SampleSpec(0, 1.0), integers=(0,)).beyond_float32[0] == 1


@pytest.mark.parametrize("value", [1e300, -1e300, 2.0**64, float("inf")])
def test_a_category_that_no_whole_number_can_be_is_refused(value: float) -> None:
    with pytest.raises(InvalidValueError, match="Use whole 64-bit numbers or text"):
        distinct_categories(pa.array([1.0, value]))


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_zeros_give_the_same_cut_points(zero: float, sign: int) -> None:
    values = sign * np.abs(np.random.default_rng(0).normal(size=500))
    values[0] = zero
    points = choose_cut_points(profile_of(values, SampleSpec(0, 1.0, distinct=8)), 0, 8)
    assert 0 in points
    assert not np.signbit(points[points == 0]).any()


@pytest.mark.ray
def test_threads_may_connect_to_a_cluster_at_once(ray_address: str) -> None:
    from shardfit.engines.ray import RayEngine

    together = threading.Barrier(4)

    def cpus(_: int) -> float:
        together.wait()
        return sum(node.cpus for node in RayEngine(os.environ).resources().nodes)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(cpus, range(4))) == {4.0}


class _Watched:
    """A file system that keeps which folders are searched with all that is below them."""

    def __init__(self) -> None:
        self.searched: list[str] = []

    def get_file_info(self, asked: Any) -> Any:
        if isinstance(asked, pafs.FileSelector) and asked.recursive:
            self.searched.append(asked.base_dir)
        return pafs.LocalFileSystem().get_file_info(asked)


@pytest.mark.parametrize(
    ("pattern", "found", "searched"),
    [
        ("part-*.parquet", ["part-1.parquet"], []),
        ("d*/*.parquet", ["data/part-2.parquet"], []),
        ("d?ta", ["data/deep/part-3.parquet", "data/part-2.parquet"], ["data"]),
        ("d*/**/part-?.parquet", ["data/deep/part-3.parquet", "data/part-2.parquet"], ["data"]),
        ("*/deep/*.parquet", ["data/deep/part-3.parquet"], []),
    ],
)
def test_a_glob_searches_no_folder_that_it_does_not_name(
    tmp_path: Path, pattern: str, found: list[str], searched: list[str]
) -> None:
    # There may be a million files in it, or it may be forbidden.
    (tmp_path / "other" / "much").mkdir(parents=True)
    for name in ("part-1.parquet", "data/part-2.parquet", "data/deep/part-3.parquet", "_part-4.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    storage, place = _Watched(), str(tmp_path / pattern)
    (infos,) = _Finder(storage, [".parquet"]).find([place], [place])
    assert sorted(os.path.relpath(info.path, tmp_path) for info in infos) == found
    assert [os.path.relpath(folder, tmp_path) for folder in storage.searched] == searched
