"""One run of the campaign on the cluster, as a driver on its first host: trains, strikes, and says what became of it.

`python -m benchmarks.faults.driver FOLDER CLUSTER` reads commands from standard input, one a line as JSON, and answers
each with one line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.faults.cases import CHECKPOINT_EVERY, FEATURES, ROUNDS, ROWS, WORKERS, FaultCase
from benchmarks.faults.holds import hold_of
from benchmarks.faults.models import model_of
from scripts import faults
from scripts.cluster import HostCluster
from shardfit import Job, resume_run, train
from shardfit.engines.ray import RayEngine
from shardfit.events import Event
from shardfit.presence import list_runs
from shardfit.stores.local import LocalStore

_PARAMS = {
    "xgboost": {"n_estimators": ROUNDS, "objective": "binary:logistic", "max_depth": 5, "eval_metric": "logloss"},
    "lightgbm": {"num_iterations": ROUNDS, "objective": "binary", "num_leaves": 24, "metric": "binary_logloss"},
}


def write_table(path: Path, rows: int = ROWS) -> None:
    """Write a table in row groups of 4,000: 60 of them for training."""
    draw = np.random.default_rng(0)
    values = draw.normal(size=(FEATURES, rows)).astype(np.float32)
    label = (values[0] * values[1] + values[2] + draw.normal(size=rows) > 0).astype(np.int8)
    columns = {f"f{number}": values[number] for number in range(FEATURES)}
    pq.write_table(pa.table({**columns, "label": label}), path, row_group_size=4_000)


def job_of(trainer: str, folder: Path, **changes: Any) -> Job:
    """Return the job of a run; the model is the same wherever and however often it is started."""
    network = trainer == "pytorch"
    fields: dict[str, Any] = {
        "trainer": trainer,
        "data": str(folder / "rows.parquet"),
        "evals": {} if network else {"held_out": str(folder / "held_out.parquet")},
        "columns": {} if network else {"label": ("label",)},
        "params": params_of(trainer, None, None),
        "engine": "ray",
        "workers": WORKERS,
        "cpus_per_worker": 1,
        "stage": str(folder / "stage"),
        "checkpoint_every_rounds": CHECKPOINT_EVERY,
        "max_attempts": 5,
    }
    return Job(**{**fields, **changes})


def params_of(trainer: str, case: FaultCase | None, held: Path | None) -> dict[str, Any]:
    """Return the parameters of a run, whose workers hold where that is needed for its fault to be felt.

    Args:
        trainer: Which framework.
        case: What will happen to the run; None for nothing.
        held: Made when it has.
    """
    phase, hold_at = (case.phase, {"mid-round": case.round, "collect": ROUNDS - 1}) if case else ("", {})
    if trainer == "pytorch":
        from benchmarks.faults.loop import train_network

        # A loop reads its rows while it trains, and could have ended before the driver hears of it.
        holds = phase in (*hold_at, "ingest")
        hyper_params = {"held": hold_at.get(phase), "until": str(held)} if holds else {}
        return {"train_func": train_network, "hyper_params": hyper_params}
    callbacks = {"callbacks": [hold_of(trainer, hold_at[phase], held)]} if held and phase in hold_at else {}
    return {**_PARAMS[trainer], **callbacks}


class Strikes:
    """An observer that strikes when its phase begins, and notes the time of what follows.

    Args:
        case: What to do, and when.
        cluster: To do it to.
    """

    def __init__(self, case: FaultCase, cluster: HostCluster) -> None:
        self.case, self.cluster = case, cluster
        self.held = Path(cluster.folder) / f"struck-{case.seed}-{time.time_ns()}"
        self.struck: list[float] = []
        self.noticed: list[float] = []
        self.again: list[float] = []
        self.worlds: list[int] = []
        self.causes: list[str] = []
        self.log: list[str] = []
        self.down: set[int] = set()
        self.repairs: list[Callable[[], object]] = []
        self.group: Any = None
        self._restored: threading.Thread | None = None
        self._losing: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        now = time.time()
        self.log.append(f"{event.name}:{getattr(event, 'phase', '')}{getattr(event, 'round', '')}")
        if event.name == "PlanMade":
            self._plan_made()
        elif event.name == "WorkerLost":
            self.noticed.append(now)
            self.causes.append(getattr(event, "cause", ""))
            if self.case.grows and len(self.noticed) == 2 and self._restored is not None:
                # What the third attempt runs on is asked next.
                self._restored.join()
        elif event.name == "MetricsReported" and len(self.again) < len(self.noticed):
            self.again.append(now)
        if not self.struck and event.attempt == 1 and self._due(event):
            self.strike(self.case.fault)
        elif self.case.grows and len(self.struck) == 1 and event.attempt == 2 and event.name == "MetricsReported":
            self.strike("kill worker")

    def _due(self, event: Event) -> bool:
        phase, round_ = getattr(event, "phase", ""), getattr(event, "round", -1)
        if self.case.phase in ("profile", "ingest"):
            return bool(phase == self.case.phase)
        return round_ == {"mid-round": self.case.round, "collect": ROUNDS - 1}.get(self.case.phase, -2)

    def _plan_made(self) -> None:
        if self.case.grows and len(self.noticed) == 1 and self._restored is None:
            # The second attempt runs without the host, the third with it.
            self._restored = threading.Thread(target=self._restore)
            self._restored.start()

    def lost(self) -> None:
        """Wait until a host that is being lost is."""
        if self._losing is not None:
            self._losing.join()

    def _restore(self) -> None:
        self.lost()
        for host in self.down:
            faults.restore(self.cluster, host)
        self.down = set()

    def strike(self, fault: str) -> None:
        """Let the fault happen now."""
        self.log.append(f"STRIKE:{fault}")
        place = self.group._places[self.case.rank % len(self.group._places)]
        host = self.cluster.addresses.index(place.address)
        self.struck.append(time.time())
        if fault == "kill worker":
            faults.kill(place.pid)
        elif fault == "freeze worker":
            faults.freeze_process(place.pid)
        elif fault == "kill driver":
            print(json.dumps({"struck": self.struck, "worlds": self.worlds, "log": self.log}), flush=True)
            faults.kill(os.getpid())
        elif fault == "kill host":
            self.down.add(host)
            # Beside the driver's own thread, which must be free to notice it.
            self._losing = threading.Thread(target=self.cluster.lose, args=(host,))
            self._losing.start()
        elif fault == "freeze host":
            self.down.add(host)
            faults.freeze(self.cluster, host)
            self.repairs.append(lambda: faults.thaw(self.cluster, host))
        elif fault == "cut host":
            self.down.add(host)
            faults.cut(self.cluster, host)
        self.held.touch()


def install(strikes: Strikes) -> Callable[[], None]:
    """Let the strikes know the workers and the writes of a run; returns what undoes that."""
    start, put = RayEngine.start, LocalStore.put

    def spied_start(self: RayEngine, layout: Any, *more: Any) -> Any:
        strikes.group = start(self, layout, *more)
        strikes.worlds.append(layout.workers)
        return strikes.group

    def struck_put(self: LocalStore, artifact: str, *arguments: Any, **options: Any) -> Any:
        case = strikes.case
        checkpoint = f"checkpoint-1-{case.round}"
        due = {"checkpoint": artifact.endswith(checkpoint), "publish": artifact.startswith("model/")}
        if not strikes.struck and due.get(case.phase, False):
            strikes.log.append(f"WRITING:{artifact.split('/')[0]}/{artifact.split('/')[-1]}")
            strikes.strike(case.fault)
        return put(self, artifact, *arguments, **options)

    RayEngine.start, LocalStore.put = spied_start, struck_put  # type: ignore[method-assign, assignment]

    def undo() -> None:
        RayEngine.start, LocalStore.put = start, put  # type: ignore[method-assign]

    return undo


def perform(case: FaultCase, folder: Path, cluster: HostCluster) -> dict[str, Any]:
    """Make one run with its fault and return what became of it."""
    strikes = Strikes(case, cluster)
    undo = install(strikes)
    begun = time.time()
    error, model = "", ""
    try:
        params = params_of(case.trainer, case, strikes.held)
        model = model_of(train(job_of(case.trainer, folder, params=params), observers=[strikes]))
    except Exception as problem:  # noqa: BLE001 - told by the campaign
        error = f"{type(problem).__name__}: {problem}"
    finally:
        undo()
        wall = time.time() - begun
        strikes.lost()
        for repair in strikes.repairs:
            repair()
        if strikes._restored is not None:
            strikes._restored.join()
    found = {name: getattr(strikes, name) for name in ("struck", "noticed", "again", "worlds", "causes", "log")}
    return {**found, "wall": wall, "error": error, "model": model, "down": sorted(strikes.down)}


def look_and_resume(trainer: str, folder: Path) -> dict[str, Any]:
    """Say what a killed driver has left, and go on with its run; what this needs is timed from here."""
    from datetime import UTC, datetime

    store = LocalStore(folder / "stage")
    left = [run for run in list_runs(store, datetime.now(UTC)) if run.status == "lost"]
    (lost,) = left
    published = list(store.list(f"model/{lost.run_id}"))
    begun = time.time()
    # A loop cannot be written down, and comes from the program that has it.
    job = job_of(trainer, folder) if trainer == "pytorch" else None
    result = resume_run(lost.run_id, str(folder / "stage"), job=job)
    model = model_of(result)
    found = {"status": lost.status, "published_before": published, "resume_s": time.time() - begun}
    return {**found, "model": model, "worlds": [result.plan.layout.workers], "attempts": result.attempts}


def undisturbed(trainer: str, folder: Path) -> dict[str, Any]:
    """Train in this process without a fault; returns the model that every other run must end with."""
    result = train(job_of(trainer, folder, engine="inline", workers=1, stage=str(folder / "undisturbed")))
    return {"model": model_of(result)}


def restart(trainer: str, folder: Path, round_: int) -> dict[str, Any]:
    """Say how long it takes a new driver to get to a round: what a run that is not resumed has to pay."""
    begun = time.time()
    reached: list[float] = []

    def observer(event: Event) -> None:
        if event.name == "MetricsReported" and getattr(event, "round", -1) == round_:
            reached.append(time.time() - begun)

    train(job_of(trainer, folder, stage=str(folder / "restarted")), observers=[observer])
    return {"restart_s": reached[0], "wall": time.time() - begun}


def answer(command: dict[str, Any], folder: Path, cluster: HostCluster) -> dict[str, Any]:
    """Carry out one command."""
    what = command.pop("do")
    if what == "undisturbed":
        return undisturbed(command["trainer"], folder)
    if what == "restart":
        return restart(command["trainer"], folder, command["round"])
    if what == "resume":
        return look_and_resume(command["trainer"], folder)
    return perform(FaultCase(**command), folder, cluster)


def main(folder: Path, cluster: HostCluster) -> None:
    """Answer commands until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), folder, cluster)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), HostCluster(**json.loads(sys.argv[2])))
