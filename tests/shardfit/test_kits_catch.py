"""Sources, strategies, policies and stores with one deliberate mistake each, and the test that catches it."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, settings

from shardfit.artifacts import ArtifactStore, Manifest
from shardfit.default_scaling import DefaultScalingPolicy
from shardfit.errors import InfeasibleRequestError
from shardfit.scaling import ClusterResources, Keep, Resize, ScalingPolicy, ScalingRequest, WorkerLayout
from shardfit.shard_plan import ShardingConstraints, ShardPlan, World
from shardfit.sharding.cut import count_rows, cut_at
from shardfit.sharding.rows import shard_by_rows
from shardfit.source import DataSource, Fragment
from shardfit.sources.parquet import ParquetSource
from shardfit.stores.local import LocalStore
from shardfit.testing import ScalingKit, ShardingKit, SourceKit, StoreKit
from shardfit.testing.sharding_kit import Division
from shardfit.testing.wrong_plugins import Mistake, caught_by

MISTAKES: list[Mistake] = []
caught = partial(caught_by, MISTAKES)


@pytest.fixture(autouse=True)
def no_shrinking() -> Iterator[None]:
    """A mistake need not be found in its shortest form, nor be remembered for the next run."""
    before = settings.get_current_profile_name()
    settings.register_profile("mistakes", settings.get_profile(before), phases=[Phase.generate], database=None)
    settings.load_profile("mistakes")
    yield
    settings.load_profile(before)


class WrongSource(SourceKit):
    """Opens Parquet files as `source`, which is right but for one method."""

    source: ClassVar[type[DataSource]]

    def write(self, folder: Path, table: pa.Table) -> None:
        pq.write_table(table, folder / "a.parquet", row_group_size=50)

    def open(self, folder: Path) -> DataSource:
        return type(self).source([str(folder / "a.parquet")])  # type: ignore[call-arg]

    def change(self, folder: Path) -> None:
        os.utime(folder / "a.parquet", (1, 1))


@caught("test_rows_come_in_the_order_in_which_they_were_written", "found 235 rows, expected 240")
class DropsARow(WrongSource):
    class source(ParquetSource):
        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            return super().read(fragment, columns, start, stop - 1, batch_rows)


@caught("test_rows_come_in_the_order_in_which_they_were_written", "the first pass: row 0 is")
class ReordersRows(WrongSource):
    class source(ParquetSource):
        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            for batch in super().read(fragment, columns, start, stop, batch_rows):
                yield batch.take(pa.array(range(batch.num_rows))[::-1])


@caught("test_rows_come_in_the_order_in_which_they_were_written", "the second pass: found 0 rows")
class ReadsOnce(WrongSource):
    class source(ParquetSource):
        seen: ClassVar[set[str]] = set()

        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            again = str(fragment) in self.seen
            self.seen.add(str(fragment))
            return iter(()) if again else super().read(fragment, columns, start, stop, batch_rows)


@caught("test_fragments_count_every_row_exactly", "counts 245 rows, 240 were written")
class CountsARowTooMany(WrongSource):
    class source(ParquetSource):
        def fragments(self) -> Sequence[Fragment]:
            return [replace(part, rows=part.rows + 1) for part in super().fragments()]


@caught("test_fragments_are_the_same_every_time", "lists other fragments|another answer")
class ListsInAnyOrder(WrongSource):
    class source(ParquetSource):
        def fragments(self) -> Sequence[Fragment]:
            listed = super().fragments()
            return [listed[i] for i in np.random.default_rng().permutation(len(listed))]


@caught("test_only_the_columns_asked_for_come_and_in_that_order", "Schema at index 0 was different")
class IgnoresTheOrderOfColumns(WrongSource):
    class source(ParquetSource):
        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            known = [name for name in self.schema().names if name in columns]
            batches = list(super().read(fragment, known, start, stop, batch_rows))
            return (pa.record_batch(batch.columns, names=list(known)) for batch in batches)


@caught("test_any_range_of_rows_is_read_in_batches_that_are_small_enough", "batches have")
class IgnoresTheSizeOfBatches(WrongSource):
    class source(ParquetSource):
        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            return super().read(fragment, columns, start, stop, 1000)


@caught("test_any_range_of_rows_is_read_in_batches_that_are_small_enough", "found .* rows, expected")
class IgnoresTheRange(WrongSource):
    class source(ParquetSource):
        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            return super().read(fragment, columns, 0, fragment.rows, batch_rows)


@caught("test_a_pickled_source_reads_what_it_is_told", "the list travels")
class TakesItsListToWorkers(WrongSource):
    class source(ParquetSource):
        def fragments(self) -> Sequence[Fragment]:
            self.listed = [replace(part, index=i) for part in super().fragments() for i in range(100)]
            return super().fragments()

        def __reduce__(self) -> Any:
            return (type(self), (list(self.__dict__.get("listed", [])),))


@caught("test_with_any_number_of_cpus_the_same_rows_are_read", "the source for 2 CPUs: found 0 rows")
class SharesRowsAmongCpus(WrongSource):
    class source(ParquetSource):
        def for_cpus(self, cpus: int) -> ParquetSource:
            return self if cpus == 1 else NoRows([])


class NoRows(ParquetSource):
    def schema(self) -> pa.Schema:
        return WrongSource().table(1).schema

    def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
        return iter(())


@caught("test_changed_data_is_an_error_and_not_another_table", "read 240 rows of data that changed")
class OverlooksChanges(WrongSource):
    class source(ParquetSource):
        def read(self, fragment: Fragment, columns: Sequence[str], start: int, stop: int, batch_rows: int) -> Any:
            (now,) = (part for part in type(self)([fragment.uri]).fragments() if part.index == fragment.index)
            return super().read(now, columns, start, stop, batch_rows)


class WrongStrategy(ShardingKit):
    def most_rows(self, division: Division, workers: int) -> int:
        return math.ceil(division.rows / workers)


def divide(fragments: Sequence[Fragment], boundaries: Sequence[int]) -> ShardPlan:
    return cut_at("wrong", count_rows(fragments), np.array(boundaries, dtype=np.int64))


@caught("test_counting_rows_one_by_one_finds_each_once_with_its_number", "checking the plan of strategy")
class PlansWithoutTheLastRow(WrongStrategy):
    @staticmethod
    def strategy(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
        plan = shard_by_rows(fragments, world, seed, constraints)
        return replace(plan, slice_stop=np.append(plan.slice_stop[:-1], plan.slice_stop[-1:] - 1))


@caught("test_no_worker_has_more_rows_than_the_bound", "a worker has .* rows of")
class GivesTheFirstWorkerEverything(WrongStrategy):
    @staticmethod
    def strategy(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
        rows = sum(part.rows for part in fragments)
        workers = max(1, min(world.workers, rows))
        return divide(fragments, [0, *range(rows - workers + 1, rows + 1)])


@caught("test_no_worker_is_idle_and_none_is_left_out_that_could_work", "workers where .* have something to do")
class LeavesAWorkerOut(WrongStrategy):
    @staticmethod
    def strategy(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
        return shard_by_rows(fragments, World(max(1, world.workers - 1)), seed, constraints)


@caught("test_equal_arguments_give_equal_plans", "the same arguments give another plan")
class DrawsWithoutItsSeed(WrongStrategy):
    @staticmethod
    def strategy(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
        rows = sum(part.rows for part in fragments)
        if world.workers == 1 or rows < 2:
            return shard_by_rows(fragments, world, seed, constraints)
        return divide(fragments, [0, random.randint(1, rows - 1), rows])


@caught("test_fragments_in_another_order_are_divided_as_they_stand", "counts the fragments in another order")
class SortsTheFragments(WrongStrategy):
    @staticmethod
    def strategy(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
        listed = sorted(fragments, key=lambda part: (part.uri, part.index))
        return shard_by_rows(listed, world, seed, constraints)


@caught("test_groups_stay_together_or_are_refused", "groups on several workers")
class TearsGroups(WrongStrategy):
    keeps_groups = True

    @staticmethod
    def strategy(fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints) -> ShardPlan:
        return shard_by_rows(fragments, world, seed)


@caught("test_groups_stay_together_or_are_refused", "DID NOT RAISE")
class OverlooksGroups(WrongStrategy):
    strategy = TearsGroups.strategy


class WrongPolicy(ScalingKit):
    """Decides as `policy`, which is right but for one method."""

    policy: ClassVar[type[ScalingPolicy]]

    def make_policy(self) -> ScalingPolicy:
        return type(self).policy()


@caught("test_no_node_is_used_beyond_what_it_has", "CPUs for workers, and .* are used")
class AsksForMoreThanThereIs(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            layout = super().decide(cluster, request)
            return replace(layout, slots=tuple(replace(slot, cpus=slot.cpus + 1) for slot in layout.slots))


@caught("test_what_was_asked_for_is_given_exactly", "workers for ScalingRequest")
class GivesFewerThanAskedFor(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            return super().decide(cluster, request).first(1)


@caught("test_one_node_more_is_never_a_loss", "with one node more")
class PrefersOddNumbersOfNodes(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            layout = super().decide(cluster, request)
            return layout if len(cluster.nodes) % 2 else layout.first(1)


@caught("test_reasons_are_given", "the reasons are")
class GivesNoReason(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            return replace(super().decide(cluster, request), reasons=("",))


@caught("test_equal_arguments_give_equal_layouts", "the same arguments, twice")
class CountsItsCalls(WrongPolicy):
    class policy(DefaultScalingPolicy):
        calls: ClassVar[list[int]] = []

        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            self.calls.append(1)
            return replace(super().decide(cluster, request), reasons=(f"Call {len(self.calls)}.",))


@caught("test_what_never_fits_is_refused_with_numbers", "does not say 999")
class RefusesWithoutNumbers(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            try:
                return super().decide(cluster, request)
            except InfeasibleRequestError:
                raise InfeasibleRequestError("placing workers", "there is no room", "Buy more.") from None


@caught("test_what_never_fits_is_refused_with_numbers", "ScalingRequest.workers=999.* gives")
class GivesWhatThereIs(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            try:
                return super().decide(cluster, request)
            except InfeasibleRequestError:
                return super().decide(cluster, ScalingRequest())


@caught("test_after_a_loss_only_what_is_left_is_used", "which the cluster does not have")
class GoesOnWithTheLost(WrongPolicy):
    class policy(DefaultScalingPolicy):
        def after_loss(self, cluster: ClusterResources, request: ScalingRequest, lost: WorkerLayout) -> Keep | Resize:
            return Resize(lost)


class WrongStore(StoreKit):
    """Stores as `store`, which is right but for one method."""

    store: ClassVar[type[LocalStore]]

    def make_store(self, folder: Path) -> ArtifactStore:
        return type(self).store(folder)

    def read_raw(self, store: ArtifactStore, artifact: str, name: str) -> bytes:
        return Path(store.address(artifact), name).read_bytes()

    def write_raw(self, store: ArtifactStore, artifact: str, name: str, content: bytes | None) -> None:
        Path(store.address(artifact), name).write_bytes(content or b"")


Files = Mapping[str, bytes | Path]


@caught("test_a_writer_that_fails_half_way_leaves_nothing_visible", "after a writer failed")
class PublishesHalf(WrongStore):
    class store(LocalStore):
        def put(self, artifact: str, files: Files, metadata: Any = None, attempt: int = 1) -> Manifest:
            ready: dict[str, bytes | Path] = {}
            try:
                for name in files:
                    content = files[name]
                    ready[name] = content if isinstance(content, bytes) else content.read_bytes()
            finally:
                manifest = super().put(artifact, ready, metadata, attempt)
            return manifest


@caught("test_an_artifact_does_not_change", "DID NOT RAISE")
class Overwrites(WrongStore):
    class store(LocalStore):
        def put(self, artifact: str, files: Files, metadata: Any = None, attempt: int = 1) -> Manifest:
            if artifact in self.list() and set(files) != {entry.name for entry in self.manifest(artifact).files}:
                self.delete(artifact)
            return super().put(artifact, files, metadata, attempt)


@caught("test_a_torn_or_altered_file_is_found_when_it_is_read", "DID NOT RAISE", damage=b"treez")
class BelievesItsFiles(WrongStore):
    class store(LocalStore):
        def read(self, artifact: str, name: str) -> bytes:
            return Path(self.address(artifact), name).read_bytes()


@caught(
    "test_an_altered_manifest_is_not_trusted",
    "DID NOT RAISE",
    alter=lambda manifest: manifest["files"][0].update(name="../../escaped"),
)
class BelievesItsManifests(WrongStore):
    class store(LocalStore):
        def get(self, artifact: str, directory: Path) -> Manifest:
            directory.mkdir(parents=True)
            (directory / "../../escaped").write_bytes(b"12345")
            return Manifest(artifact, ())


@caught("test_an_older_attempt_can_not_publish_once_a_newer_one_is_fenced", "DID NOT RAISE")
class ForgetsItsFences(WrongStore):
    class store(LocalStore):
        def fence(self, run_id: str, attempt: int) -> None:
            """Remembered nowhere."""


@caught("test_whatever_is_done_to_it_it_answers_like_a_dict", r"list\(\) gives")
class ListsWhatIsGone(WrongStore):
    @dataclass(frozen=True)
    class store(LocalStore):
        def delete(self, artifact: str) -> None:
            """Removes nothing."""


@caught("test_of_several_threads_one_wins_and_files_never_mix", "of 8 threads were told")
class TellsEveryWriterThatItWon(WrongStore):
    class store(LocalStore):
        def put(self, artifact: str, files: Files, metadata: Any = None, attempt: int = 1) -> Manifest:
            return self.manifest(artifact) if artifact in self.list() else self._first(artifact, files)

        def _first(self, artifact: str, files: Files) -> Manifest:
            try:
                return super().put(artifact, files)
            except FileExistsError:
                return self.manifest(artifact)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_the_kit_catches(mistake: Mistake, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    mistake.check_caught({"tmp_path": tmp_path, "tmp_path_factory": tmp_path_factory})
