"""What every `Trainer` must do: a kit to subclass."""

from __future__ import annotations

import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from shardfit.binned_trainer import BinnedTrainer
from shardfit.columns import ColumnRoles
from shardfit.connector import DataConnector
from shardfit.errors import UnknownParameterError, UnreadableSourceError
from shardfit.events import CheckpointStored, Event, MetricsReported, PlanMade, ProfileMade, Progress, RunEnded
from shardfit.file_parts import contents
from shardfit.sources.arrow import ArrowSource
from shardfit.sources.concat import ConcatSource
from shardfit.stores.local import LocalStore
from shardfit.testing.kit import Kit, check
from shardfit.testing.ray_cluster import ray_cluster
from shardfit.testing.tables import CATEGORICAL, FEATURES, awkward_table
from shardfit.testing.trainer_doubles import CountingSource, FailingSource, forgetful
from shardfit.testing.trainer_runs import FinishedRun, run_trainer
from shardfit.trainer import TRAIN, Trainer

Files = Mapping[str, bytes]

_DRIVER_CALLS = ("configure", "columns", "rendezvous", "run_worker", "left", "collect", "save")
_BINNED_CALLS = ("max_bin", "label_terms", "check_labels", "with_profile", "open_reference", "join", "ingest", "fit")
_SHARES = (0.0, 0.02, 0.03, 0.41, 0.42, 0.9, 1.0)
_CLUSTER = pytest.StashKey[str]()


def cluster_of_session(config: pytest.Config) -> str:
    """Return the address of a Ray cluster of four CPUs, however many the machine has: one for all tests of a session.

    The first call starts it; it ends with the session.

    Args:
        config: Pytest's own.
    """
    if _CLUSTER not in config.stash:
        running = ExitStack()
        config.stash[_CLUSTER] = running.enter_context(ray_cluster(cpus=4))
        config.add_cleanup(running.close)
    return config.stash[_CLUSTER]


class TrainerKit(Kit, ABC):
    """What every trainer must do. Subclass it, make the trainer, and give it parameters of a short training.

    The table is sorted by time, lies in pieces of very different sizes, and has missing values, categories that come
    late, and weights; `columns` and `table` may leave out what the trainer does not know.

    Example:
        ```python
        class TestMean(TrainerKit):
            params = {"smoothing": 2.0}
            misspelt = ("smothing", "smoothing")
            no_checkpoints = "It makes one pass: there is nothing to go on from."

            def make_trainer(self):
                return MeanTrainer()
        ```
    """

    params: ClassVar[Mapping[str, Any]]
    """Parameters of a training of a second or so."""

    misspelt: ClassVar[tuple[str, str]]
    """A parameter that does not exist, and the one that was meant."""

    no_checkpoints: ClassVar[str] = ""
    """Why the trainer offers no checkpoints; skips the tests of resuming."""

    columns: ClassVar[ColumnRoles] = ColumnRoles(FEATURES, ("delay",), "weight", categorical=CATEGORICAL)
    """The part that each column of `table` plays."""

    rows: ClassVar[int] = 1500
    """Rows of the training data, 100 or more."""

    @abstractmethod
    def make_trainer(self) -> Trainer:
        """Return a new trainer, as its provider does."""

    def table(self, rows: int, seed: int) -> pa.Table:
        """Return rows to train on or to measure on.

        Args:
            rows: How many, 100 or more.
            seed: Of the generator; another one gives other rows of the same kind.
        """
        return awkward_table(rows, seed)

    def compare(self, one: Files, other: Files, what: str) -> None:
        """Check that two models are the same: here, file by file and byte by byte.

        Args:
            one: The files of a model.
            other: Those of another.
            what: What differs between the two trainings.
        """
        check(sorted(one) == sorted(other), f"{what}: the files {sorted(one)!r} and {sorted(other)!r}")
        for name in one:
            check(one[name] == other[name], f"{what}: another model, {name!r} differs")

    @pytest.fixture
    def cluster(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """Lend a Ray cluster of four CPUs, one for all kits of a session; override it to lend your own."""
        pytest.importorskip("ray", reason="Ray is not installed: nothing can be said about several workers")
        address = cluster_of_session(request.config)
        monkeypatch.setenv("RAY_ADDRESS", address)
        yield address
        sys.modules["ray"].shutdown()

    def test_training_again_with_the_same_object_gives_the_same_model(self, tmp_path: Path) -> None:
        """A trainer keeps nothing of a run."""
        trainer = self.make_trainer()
        first, second = (self._train(tmp_path, trainer).files for _ in range(2))
        check(first, "save() gave no file")
        self.compare(first, second, "the same trainer object, twice")

    def test_calls_come_in_the_order_of_the_contract_and_nothing_is_kept_between_them(self, tmp_path: Path) -> None:
        """Every call goes to a new trainer object, with a copy of the configuration: the same model."""
        calls: list[str] = []
        found = self._train(tmp_path, forgetful(self.make_trainer, calls))
        made = tuple(call for call in calls if call in _DRIVER_CALLS)
        check(made == _DRIVER_CALLS, f"the calls came as {made!r}")
        if isinstance(self.make_trainer(), BinnedTrainer):
            first = sorted(_BINNED_CALLS, key=calls.index)
            check(first == list(_BINNED_CALLS), f"the calls of a binned trainer came as {first!r}")
        self.compare(self._train(tmp_path).files, found.files, "a new trainer object for every call")

    def test_every_row_is_handed_over_exactly_once(self, tmp_path: Path) -> None:
        """The proof in the result, and a source that counts: no row is read more often than another."""
        source = CountingSource(self._source(self.table(self.rows, 0)))
        found = self._train(tmp_path, data=DataConnector.of(source))
        for name, rows in {TRAIN: self.rows, "eval": self.rows // 3, "few": 1}.items():
            coverage = found.coverage[name]
            check(coverage.exact, f"the coverage of {name!r} is {coverage!r}")
            counted = (coverage.planned.rows, coverage.handed.rows)
            check(counted == (rows, rows), f"{counted} rows of {name!r} were planned and handed over, of {rows}")
            check(coverage.library_rows in (None, rows), f"the library holds {coverage.library_rows} rows of {rows}")
        passes = sorted(set(source.read_rows.values()))
        check(len(source.read_rows) == self.rows, f"{len(source.read_rows)} rows were read of {self.rows}")
        check(len(passes) == 1, f"some rows were read {passes[0]} times and others {passes[-1]} times")

    @pytest.mark.parametrize("workers", [2, 3])
    def test_the_number_of_workers_does_not_change_the_model(self, tmp_path: Path, cluster: str, workers: int) -> None:
        """Nor the metrics. One worker has no row of an evaluation set, as that has one row only."""
        alone, together = (self._train(tmp_path, workers=count) for count in (1, workers))
        planned = together.result.plan.datasets
        check(together.result.plan.layout.workers == workers, f"{together.result.plan.layout.workers} workers ran")
        check(planned["few"].shard_plan.workers < workers, "every worker had a row of the evaluation set")
        self.compare(alone.files, together.files, f"{workers} workers for one")
        check(alone.result.metrics == together.result.metrics, f"{workers} workers measure other metrics than one")
        check(all(part.exact for part in together.coverage.values()), f"the coverage is {together.coverage!r}")

    def test_a_failure_while_reading_fails_the_run_and_publishes_nothing(self, tmp_path: Path) -> None:
        """The error of the source arrives as it is; no model is made of half the data."""
        self._fail(tmp_path, self.make_trainer(), 1)

    def test_a_failure_of_one_worker_stops_the_others_and_publishes_nothing(self, tmp_path: Path, cluster: str) -> None:
        """While its peers wait for it, in whatever they wait."""
        self._fail(tmp_path, self.make_trainer(), 2)

    def test_a_failed_attempt_leaves_nothing_in_the_trainer(self, tmp_path: Path) -> None:
        """The next run of the same object makes the model that a new one makes."""
        trainer = self.make_trainer()
        self._fail(tmp_path, trainer, 1)
        self.compare(
            self._train(tmp_path).files, self._train(tmp_path, trainer).files, "a trainer object that failed before"
        )

    def test_a_run_that_was_interrupted_goes_on_to_the_same_model(self, tmp_path: Path) -> None:
        """From its checkpoint, without the rounds that it holds."""
        step, run_id = self._interrupt(tmp_path)
        found = self._train(tmp_path, resume_from=run_id)
        rounds = [event.round for event in found.of(MetricsReported)]
        rounds += [event.done - 1 for event in found.of(Progress) if event.phase == "fit"]
        check(min(rounds, default=step) >= step, f"the checkpoint holds {step} rounds, round {min(rounds)} ran again")
        self.compare(self._train(tmp_path).files, found.files, "a run that was interrupted")

    def test_a_checkpoint_goes_on_with_another_number_of_workers(self, tmp_path: Path, cluster: str) -> None:
        """As after a loss."""
        _, run_id = self._interrupt(tmp_path)
        found = self._train(tmp_path, workers=2, resume_from=run_id)
        self.compare(self._train(tmp_path).files, found.files, "a run that went on with two workers")

    def test_a_parameter_that_does_not_exist_is_refused_with_the_nearest(self) -> None:
        """Libraries accept misspelt parameters in silence; a trainer does not."""
        wrong, meant = self.misspelt
        with pytest.raises(UnknownParameterError) as raised:
            self.make_trainer().configure({**self.params, wrong: 1})
        check(repr(wrong) in str(raised.value), f"{raised.value} does not name {wrong!r}")
        check(meant in str(raised.value), f"{raised.value} does not suggest {meant!r}")

    def test_a_model_that_is_saved_and_loaded_is_the_same_model(self, tmp_path: Path) -> None:
        """The published files are those that `save` gives, make the same predictions, and hold no pickle."""
        found = self._train(tmp_path)
        model, trainer = found.result.model, self.make_trainer()
        for name, content in found.files.items():
            check(content[:1] != b"\x80" or content[1:2] not in b"\x02\x03\x04\x05", f"{name!r} is a pickle")
        self.compare(found.files, contents(trainer.save(model)), "what was published and what save() gives")
        loaded = self.make_trainer().load(found.files)
        self.compare(found.files, contents(trainer.save(loaded)), "a model that was loaded")
        rows = self._rows_to_predict(trainer, model)
        check(trainer.predict(loaded, rows).equals(trainer.predict(model, rows)), "a loaded model predicts otherwise")

    def test_predictions_come_in_the_order_of_the_rows(self, tmp_path: Path) -> None:
        """One for each row, whatever the rows beside it."""
        model, trainer = self._train(tmp_path).result.model, self.make_trainer()
        rows = self._rows_to_predict(trainer, model)
        whole = trainer.predict(model, rows).to_pylist()
        check(len(whole) == rows.num_rows, f"{len(whole)} predictions for {rows.num_rows} rows")
        check(len(set(map(repr, whole))) > 1, "every row has the same prediction: their order cannot be told")
        order = list(range(rows.num_rows))[::-1]
        turned = trainer.predict(model, rows.take(pa.array(order))).to_pylist()
        check(turned == whole[::-1], "the predictions of rows in reverse are not those of the rows, in reverse")
        pieces = [trainer.predict(model, rows.slice(i, 97)) for i in range(0, rows.num_rows, 97)]
        check(
            [value for piece in pieces for value in piece.to_pylist()] == whole,
            "the predictions depend on how the rows are cut into batches",
        )

    def test_the_trainer_its_configuration_and_its_model_can_be_pickled(self, tmp_path: Path) -> None:
        """They travel to workers, and are there what they are here."""
        there: Trainer = pickle.loads(pickle.dumps(self.make_trainer()))  # noqa: S301 - made here
        found = self._train(tmp_path, there)
        self.compare(self._train(tmp_path).files, found.files, "a pickled trainer")
        config = self.make_trainer().configure(self.params)
        pickle.loads(pickle.dumps(config))  # noqa: S301 - made here
        model = pickle.loads(pickle.dumps(found.result.model))  # noqa: S301 - made here
        self.compare(found.files, contents(there.save(model)), "a pickled model")

    def _train(self, folder: Path, trainer: Trainer | None = None, **fields: Any) -> FinishedRun:
        evaluation = self.table(self.rows // 3, 1)
        job = {
            "data": DataConnector.of(self._source(self.table(self.rows, 0))),
            "evals": {"eval": DataConnector.of(self._source(evaluation)), "few": evaluation.slice(0, 1)},
            "columns": self.columns,
            "params": dict(self.params),
        }
        stage = fields.pop("stage", folder / "stage")
        return run_trainer(trainer or self.make_trainer(), stage, **{**job, **fields})

    def _source(self, table: pa.Table) -> ConcatSource:
        cuts = [round(share * table.num_rows) for share in _SHARES]
        return ConcatSource([ArrowSource(table.slice(a, b - a)) for a, b in pairwise(cuts)])

    def _fail(self, folder: Path, trainer: Trainer, workers: int) -> None:
        armed, stage = folder / "armed", folder / f"stage of the failure on {workers}"
        source = FailingSource(self._source(self.table(self.rows, 0)), armed)
        # A binned trainer's own calls come after the profile, which the core makes.
        moment = ProfileMade if isinstance(trainer, BinnedTrainer) else PlanMade
        events: list[Event] = []

        def watch(event: Event) -> None:
            events.append(event)
            if isinstance(event, moment):
                armed.touch()

        try:
            self._train(folder, trainer, workers=workers, data=DataConnector.of(source), stage=stage, observers=[watch])
        except UnreadableSourceError:
            armed.unlink()
        else:
            check(False, "the source failed and the run did not")
        models = list(LocalStore(stage).list("model/"))
        check(not models, f"{models!r} were published though a worker failed")
        ended = [event.status for event in events if isinstance(event, RunEnded)]
        check(ended == ["failed"], f"the run ended as {ended!r}")

    def _interrupt(self, folder: Path) -> tuple[int, str]:
        if self.no_checkpoints:
            pytest.skip(self.no_checkpoints)
        stored: list[CheckpointStored] = []

        def interrupt(event: Event) -> None:
            if isinstance(event, CheckpointStored):
                stored.append(event)
                raise KeyboardInterrupt

        try:
            self._train(folder, checkpoint_every_rounds=1, observers=[interrupt])
        except KeyboardInterrupt:
            return stored[0].step, stored[0].run_id
        check(stored, "no checkpoint was offered; if there can be none, say why in no_checkpoints")
        pytest.fail("a run that was interrupted went on to its end")

    def _rows_to_predict(self, trainer: Trainer, model: Any) -> pa.RecordBatch:
        table = self.table(self.rows, 2).select(list(trainer.input_columns(model))).combine_chunks()
        return table.to_batches()[0]


__all__ = ["TrainerKit"]
