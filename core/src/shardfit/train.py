"""START HERE: the path from a table to a published model, on one screen.

    DataConnector -> fragments -> WorkerLayout -> ShardPlan -> workers: profile -> matrix -> fit -> model -> stage

Each line of `train` calls one function; `docs/path.md` draws the same path.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from shardfit.binned_trainer import BinnedTrainer
from shardfit.coverage import check_coverage
from shardfit.engine import Engine, WorkerGroup
from shardfit.engines import current_resources, make_engine
from shardfit.errors import WorkerLostError
from shardfit.events import EventSink
from shardfit.job import Job
from shardfit.profile.datasets import profile_datasets
from shardfit.registry import Registry, default_registry
from shardfit.run import Run, TrainResult
from shardfit.run_plan import RunPlan, plan_run, replan
from shardfit.scaling import Resize, WorkerLayout
from shardfit.trainer import RunSettings, WorkerReport
from shardfit.worker import WorkerShard, train_worker


def train(job: Job, *, registry: Registry | None = None, observers: Sequence[EventSink] = ()) -> TrainResult:
    """Train the model that `job` describes and publish it.

    Args:
        job: What to train, on what, how.
        registry: Where trainers, sources and the rest come from; the installed plugins if None.
        observers: Called with every event, on this thread, beside the observers among the plugins.

    Returns:
        The model, its metrics, the proof of coverage, and where it was published.

    Raises:
        ShardfitError: See `shardfit.errors`; nothing is published unless everything went well.
    """
    registry = registry or default_registry()
    with Run.start(job, registry, observers) as run:
        with run.phase("plan"):
            plan = plan_run(job, registry, current_resources(engine=job.engine))
        reports = _train_until_done(run, plan, registry)
        coverage = check_coverage([report.coverage for report in reports])
        model = plan.trainer.collect([report.value for report in reports])
        with run.phase("publish"):
            return run.publish(plan, model, coverage)


def _train_until_done(run: Run, plan: RunPlan, registry: Registry) -> list[WorkerReport]:
    engine = make_engine(plan.layout.engine)
    while True:
        run.planned(plan)
        try:
            with run.phase("start"):
                workers = engine.start(plan.layout, run.attempt)
            with workers:
                return train_attempt(run, plan, workers)
        except WorkerLostError as lost:
            run.lost(lost)
            plan = replan(plan, registry, layout_after_loss(lost, plan, registry, engine))


def layout_after_loss(lost: WorkerLostError, plan: RunPlan, registry: Registry, engine: Engine) -> WorkerLayout:
    """Return the layout of the next attempt: the policy is asked, and asked again after each wait that it wants.

    Args:
        lost: What ended the last attempt.
        plan: Of that attempt.
        registry: Has the policy.
        engine: Says what is left of the cluster.

    Raises:
        WorkerLostError: The policy waited as often as the job allows attempts, and no replacement came.
    """
    policy = registry.get("scaling_policies", plan.job.scaling)
    for _ in range(plan.job.max_attempts):
        answer = policy.after_loss(engine.resources(), plan.request, plan.layout)
        if isinstance(answer, Resize):
            return answer.layout
        time.sleep(answer.wait_s)
    raise lost


def train_attempt(run: Run, plan: RunPlan, workers: WorkerGroup) -> list[WorkerReport]:
    """Profile, bin and fit on running workers; return what each ends with, by rank.

    Args:
        run: Receives the events.
        plan: What to do; made for the layout of `workers`.
        workers: Running, and still so afterwards.

    Raises:
        WorkerLostError: A worker or its node died; the attempt can be made again.
        ShardfitError: Anything else that a worker raised.
    """
    sources = workers.share({name: dataset.source for name, dataset in plan.datasets.items()})
    shards = [_shards_of(plan, rank) for rank in range(plan.layout.workers)]
    settings = RunSettings(
        plan.roles,
        plan.job.seed,
        plan.job.checkpoint_every_rounds,
        plan.job.checkpoint_every_seconds,
        run.checkpoint,
    )
    config = plan.config
    if isinstance(plan.trainer, BinnedTrainer):
        with run.phase("profile"):
            made = profile_datasets(plan, plan.trainer, workers, sources, shards, run.on_event)
            run.profiled(made.profile, plan)
            config, reference = made.config, made.reference
        settings = replace(settings, reference=reference)
    shared = [workers.share(value) for value in (plan.trainer, config, settings)]
    with run.phase("train"), plan.trainer.rendezvous(workers) as meeting:
        arguments = [(sources, part, *shared, meeting) for part in shards]
        return workers.run(train_worker, arguments, run.on_event)


def _shards_of(plan: RunPlan, rank: int) -> dict[str, WorkerShard]:
    return {
        name: WorkerShard(dataset.shard_plan.shard(rank, dataset.fragments), plan.roles.all)
        for name, dataset in plan.datasets.items()
    }
