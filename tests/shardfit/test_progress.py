"""Progress is shown as lines where there is no terminal, as bars where there is one, and never too often."""

import io

from rich.console import Console

from shardfit.cli.progress import ProgressReporter
from shardfit.events import (
    ArtifactStored,
    BinsRejected,
    MetricsReported,
    PlanMade,
    ProfileMade,
    Progress,
    RunEnded,
    WorkerLost,
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(terminal: bool = False) -> tuple[ProgressReporter, io.StringIO, Clock]:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=200, _environ={"TERM": "xterm"})
    return ProgressReporter(console, clock, every_seconds=5.0), out, clock


def test_the_plan_with_its_reasons_and_warnings_is_told_at_once() -> None:
    report, out, _ = make()
    report(
        PlanMade(
            workers=2, rows={"train": 1000, "held_out": 10}, digests={}, reasons=("Two nodes.",), warnings=("[b]",)
        )
    )
    report(ProfileMade(rows=1000, sample_rows=10, warnings=("odd values",)))
    assert out.getvalue().splitlines() == [
        "train 1,000 rows, held_out 10 rows; 2 workers. Two nodes.",
        "warning: [b]",
        "warning: odd values",
    ]


def test_lines_of_progress_come_no_oftener_than_asked() -> None:
    report, out, clock = make()
    for second in range(21):
        clock.now = float(second)
        report(Progress(worker=0, phase="profile", done=second * 10, total=400))
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[1] == "reading and sampling: 100 of 400 rows (25 %), about 30 s left"


def test_rows_add_up_over_workers_and_datasets_and_rounds_are_those_of_the_slowest() -> None:
    report, out, clock = make()
    report(Progress(worker=0, phase="ingest", done=10, total=20, dataset="train"))
    report(Progress(worker=1, phase="ingest", done=5, total=20, dataset="train"))
    clock.now = 10.0
    report(Progress(worker=0, phase="ingest", done=1, total=10, dataset="held_out"))
    report(Progress(worker=0, phase="fit", done=1, total=100))
    clock.now = 20.0
    report(MetricsReported(round=4, metrics={"held_out-auc": 0.75}))
    report(Progress(worker=1, phase="fit", done=4, total=100))
    assert out.getvalue().splitlines() == [
        "binning: 16 of 50 rows (32 %), about 21 s left",
        "training: 1 of 100 rounds (1 %), held_out-auc 0.75, about 990 s left",
    ]


def test_the_end_a_loss_and_the_model_are_told() -> None:
    report, out, _ = make()
    report(WorkerLost(worker=1, node="b", reason="killed by signal 9"))
    report(BinsRejected(worker=0, dataset="train", reason="they are damaged"))
    report(ArtifactStored(artifact="model/x", address="/stage/x"))
    report(RunEnded(status="finished", phases={"fit": 1.25}))
    assert out.getvalue().splitlines() == [
        "worker 1 was lost: killed by signal 9",
        "warning: worker 0, they are damaged",
        "stored model/x at /stage/x",
        "finished: fit 1.2 s",
    ]


def test_a_terminal_shows_bars_with_the_metric_and_is_left_clean() -> None:
    report, out, clock = make(terminal=True)
    report(Progress(worker=0, phase="ingest", done=10, total=20))
    report(MetricsReported(round=0, metrics={"train-rmse": 0.125}))
    report(Progress(worker=0, phase="fit", done=1, total=10))
    clock.now = 3.0
    report(RunEnded(status="finished"))
    report.close()
    shown = out.getvalue()
    assert "training" in shown
    assert "train-rmse 0.125" in shown
    assert "1/10" in shown
    assert shown.rstrip().endswith("finished")
