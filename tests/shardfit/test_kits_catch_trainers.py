"""Trainers with one deliberate mistake each, and the test of the kit that catches it; and kits that are bent."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from shardfit.coverage import DatasetCoverage
from shardfit.engine import WorkerContext
from shardfit.errors import UnreadableSourceError
from shardfit.exact_sum import ExactSum
from shardfit.shard_reader import ShardBatch, ShardReader
from shardfit.testing import ScalingKit, TrainerKit
from shardfit.testing.mean_trainer import MeanModel, MeanTrainer, Sums
from shardfit.testing.wrong_plugins import Mistake, caught_by
from shardfit.trainer import RunSettings, Trainer, WorkerReport
from tests.shardfit.worker_processes import ProcessEngine

pytest_plugins = ["pytester"]
MISTAKES: list[Mistake] = []
caught = partial(caught_by, MISTAKES)
Value = tuple[str, float, Sums]


class WrongTrainer(TrainerKit):
    """Makes `trainer`, which is right but for one method."""

    trainer: ClassVar[type[Trainer]]
    params: ClassVar = {"smoothing": 2.0}
    misspelt = ("smothing", "smoothing")
    rows = 300

    def make_trainer(self) -> Trainer:
        return type(self).trainer()


class OtherBatches:
    """A reader that hands over something else than it reads.

    Args:
        reader: What it reads from.
        batches: What it hands over.
    """

    def __init__(self, reader: ShardReader, batches: Any) -> None:
        self.batches = lambda: batches(reader)


class OnOtherBatches(MeanTrainer):
    """Trains on what `hand_over` makes of the batches."""

    def hand_over(self, reader: ShardReader) -> Iterator[ShardBatch]:
        return reader.batches()

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: float,
        settings: RunSettings,
        meeting: None,
    ) -> Any:
        readers: Any = {name: OtherBatches(reader, self.hand_over) for name, reader in shards.items()}
        return super().run_worker(context, readers, config, settings, meeting)


@caught("test_every_row_is_handed_over_exactly_once", "auditing the rows of 'train")
class LeavesOutTheLastBatch(WrongTrainer):
    class trainer(OnOtherBatches):
        def hand_over(self, reader: ShardReader) -> Iterator[ShardBatch]:
            return islice(reader.batches(), max(len(reader.shard.slices) - 1, 0))


@caught("test_every_row_is_handed_over_exactly_once", "some rows were read 1 times and others 2 times")
class ReadsSomeRowsTwice(WrongTrainer):
    class trainer(OnOtherBatches):
        def hand_over(self, reader: ShardReader) -> Iterator[ShardBatch]:
            list(islice(reader.batches(), 2))
            return reader.batches()


@caught("test_a_failure_while_reading_fails_the_run_and_publishes_nothing", "the source failed and the run did not")
class SwallowsAFailure(WrongTrainer):
    class trainer(OnOtherBatches):
        def hand_over(self, reader: ShardReader) -> Iterator[ShardBatch]:
            try:
                yield from reader.batches()
            except UnreadableSourceError:
                return

        def run_worker(self, context: WorkerContext, shards: Mapping[str, ShardReader], *others: Any) -> Any:
            value = super().run_worker(context, shards, *others)
            coverage = {name: DatasetCoverage(reader.handed, reader.handed) for name, reader in shards.items()}
            return WorkerReport(value, coverage)


@caught("test_training_again_with_the_same_object_gives_the_same_model", "the same trainer object, twice")
class KeepsItsSums(WrongTrainer):
    class trainer(MeanTrainer):
        def __init__(self) -> None:
            self.kept: Sums = {}

        def add(self, sums: Sums, *others: Any) -> None:
            super().add(self.kept, *others)
            sums.update(self.kept)


@caught("test_a_failed_attempt_leaves_nothing_in_the_trainer", "a trainer object that failed before")
class KeepsItsSumsOfAFailedAttempt(WrongTrainer):
    class trainer(KeepsItsSums.trainer):
        def collect(self, values: Sequence[Value]) -> MeanModel:
            self.kept = {}
            return super().collect(values)


@caught("test_calls_come_in_the_order_of_the_contract_and_nothing_is_kept_between_them", "no attribute 'smoothing'")
class KeepsItsConfiguration(WrongTrainer):
    class trainer(MeanTrainer):
        def configure(self, params: Mapping[str, Any]) -> float:
            self.smoothing = super().configure(params)
            return self.smoothing

        def collect(self, values: Sequence[Value]) -> MeanModel:
            return super().collect([(column, self.smoothing, sums) for column, _, sums in values])


@caught("test_training_again_with_the_same_object_gives_the_same_model", "another model, 'model.json' differs")
class DrawsWithoutTheSeed(WrongTrainer):
    class trainer(MeanTrainer):
        def configure(self, params: Mapping[str, Any]) -> float:
            return random.random()


@caught("test_a_model_that_is_saved_and_loaded_is_the_same_model", "a model that was loaded|predicts otherwise")
class ForgetsACategory(WrongTrainer):
    class trainer(MeanTrainer):
        def save(self, model: MeanModel) -> Mapping[str, bytes]:
            return super().save(replace(model, means=dict(list(model.means.items())[:-1])))


@caught("test_a_model_that_is_saved_and_loaded_is_the_same_model", "'model.json' is a pickle")
class PublishesAPickle(WrongTrainer):
    class trainer(MeanTrainer):
        def save(self, model: MeanModel) -> Mapping[str, bytes]:
            return {name: b"\x80\x05" + content for name, content in super().save(model).items()}


@caught("test_a_parameter_that_does_not_exist_is_refused_with_the_nearest", "DID NOT RAISE")
class TakesAnyParameter(WrongTrainer):
    class trainer(MeanTrainer):
        def configure(self, params: Mapping[str, Any]) -> float:
            return float(params.get("smoothing", 0.0))


@caught("test_predictions_come_in_the_order_of_the_rows", "rows in reverse")
class SortsItsPredictions(WrongTrainer):
    class trainer(MeanTrainer):
        def predict(self, model: MeanModel, batch: pa.RecordBatch) -> pa.Array:
            return super().predict(model, batch).sort()


@caught("test_predictions_come_in_the_order_of_the_rows", "predictions for 300 rows")
class PredictsDistinctRows(WrongTrainer):
    class trainer(MeanTrainer):
        def predict(self, model: MeanModel, batch: pa.RecordBatch) -> pa.Array:
            return super().predict(model, batch).unique()


@caught("test_the_trainer_its_configuration_and_its_model_can_be_pickled", "cannot pickle")
class HoldsALock(WrongTrainer):
    class trainer(MeanTrainer):
        def __init__(self) -> None:
            self.lock = threading.Lock()


class Stepped(MeanTrainer):
    """Smooths by one row more in each of four rounds, and offers a checkpoint after each."""

    def first(self, settings: RunSettings) -> tuple[int, float]:
        """Return the round to start with, and the smoothing so far."""
        resume = settings.resume
        return (0, 0.0) if resume is None else (resume.step, float(resume.files["smoothing"]))

    def run_worker(
        self,
        context: WorkerContext,
        shards: Mapping[str, ShardReader],
        config: float,
        settings: RunSettings,
        meeting: None,
    ) -> Value:
        column, _, sums = super().run_worker(context, shards, config, settings, meeting)
        start, smoothing = self.first(settings)
        for number in range(start, 4):
            smoothing += 1.0
            context.report(number, {"eval-smoothing": smoothing})
            if settings.checkpoint_every_rounds is not None:
                context.offer_checkpoint(number + 1, {"smoothing": str(smoothing).encode()})
        return column, config + smoothing, sums


class RightSteps(WrongTrainer):
    trainer = Stepped


RESUMED = "test_a_run_that_was_interrupted_goes_on_to_the_same_model"


@caught(RESUMED, "holds 1 rounds, round 0 ran again")
class StartsOverFromACheckpoint(WrongTrainer):
    class trainer(Stepped):
        def first(self, settings: RunSettings) -> tuple[int, float]:
            return 0, 0.0


@caught(RESUMED, "a run that was interrupted: another model")
class LosesWhatACheckpointHolds(WrongTrainer):
    class trainer(Stepped):
        def first(self, settings: RunSettings) -> tuple[int, float]:
            return super().first(settings)[0], 0.0


@caught(RESUMED, "no checkpoint was offered")
class OffersNoCheckpoint(WrongTrainer):
    trainer = MeanTrainer


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_the_kit_catches(mistake: Mistake, tmp_path: Path) -> None:
    mistake.check_caught({"tmp_path": tmp_path})


class MeanOfMeans(WrongTrainer):
    class trainer(MeanTrainer):
        def collect(self, values: Sequence[Value]) -> MeanModel:
            models = [super(type(self), self).collect([value]) for value in values]
            total = ExactSum.of(pa.array([model.default for model in models]).to_numpy())
            return replace(models[0], default=total.total / len(models))


def test_a_model_that_depends_on_the_number_of_workers_is_caught(tmp_path: Path, four_processes: ProcessEngine) -> None:
    mistake = Mistake(MeanOfMeans, "test_the_number_of_workers_does_not_change_the_model", "2 workers for one")
    mistake.check_caught({"tmp_path": tmp_path, "cluster": four_processes, "workers": 2})


def test_a_mistake_that_is_not_caught_is_told(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        Mistake(RightSteps, RESUMED, ".").check_caught({"tmp_path": tmp_path})
    with pytest.raises(AssertionError, match="has no test 'test_nothing'"):
        Mistake(RightSteps, "test_nothing", ".").check_caught({})


class Lenient:
    def test_reasons_are_given(self) -> None:
        """Asks for nothing."""


@pytest.mark.parametrize(
    ("bases", "replaced"),
    [
        ((ScalingKit,), {"test_reasons_are_given": lambda self: None}),
        ((ScalingKit,), {"test_reasons_are_given": None}),
        ((ScalingKit,), {"test_reasons_are_given": pytest.mark.xfail(lambda self: None)}),
        ((ScalingKit,), {"test_reasons_are_given": pytest.mark.skip(reason="slow")(lambda self: None)}),
        ((Lenient, ScalingKit), {}),
    ],
    ids=["a function", "nothing", "xfail without a reason", "skip", "a mixin"],
)
def test_a_kit_test_is_not_replaced_in_silence(bases: tuple[type, ...], replaced: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"replaces test_reasons_are_given .*xfail\(reason="):
        type("Bent", bases, replaced)


def test_a_kit_test_is_replaced_with_a_reason_and_tests_are_added() -> None:
    class Honest(ScalingKit):
        @pytest.mark.xfail(reason="The reasons are in another language.")
        def test_reasons_are_given(self) -> None:
            pytest.fail("no reasons")

        def test_of_its_own(self) -> None:
            """Is not the kit's."""

    assert Honest.kit_tests == ScalingKit.kit_tests
    assert "test_of_its_own" not in Honest.kit_tests


PLUGIN_TESTS = """
import pyarrow.feather as feather
import pytest
from shardfit.sources.arrow import ArrowSource
from shardfit.testing import SourceKit


class Files(SourceKit):
    never_changes = "The rows are in memory."
    max_examples = 3

    def write(self, folder, table):
        feather.write_feather(table, folder / "a")

    def open(self, folder):
        return ArrowSource(feather.read_table(folder / "a"), fragment_rows=50)


class TestRight(Files):
    pass


class TestWrong(Files):
    def open(self, folder):
        return ArrowSource(feather.read_table(folder / "a").slice(1), fragment_rows=50)

    @pytest.mark.xfail(reason="It names itself in two lines.")
    def test_it_is_named_in_one_line(self):
        assert False
"""


def test_an_author_runs_a_kit_with_pytest(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLUGIN_TESTS)
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    done.stdout.fnmatch_lines(["E *AssertionError: fragments() counts 239 rows, 240 were written"])
    outcomes = done.parseoutcomes()
    assert outcomes["xfailed"] == 1
    assert outcomes["skipped"] == 2
    assert not any("TestRight" in line and "FAILED" in line for line in done.outlines)
