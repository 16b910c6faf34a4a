"""START HERE: the path from a table to a published model, on one screen.

    DataConnector -> fragments -> WorkerLayout -> ShardPlan -> workers: profile -> matrix -> fit -> model -> stage

Each line of `train` calls one function; `docs/path.md` draws the same path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from shardfit.after_loss import layout_after_loss
from shardfit.binned_trainer import BinnedTrainer
from shardfit.cancellation import Cancellation
from shardfit.coverage import check_coverage
from shardfit.engine import WorkerGroup
from shardfit.engines import current_resources, make_engine
from shardfit.errors import WorkerLostError
from shardfit.events import EventSink
from shardfit.job import Job
from shardfit.profile.datasets import KnownProfile, profile_datasets
from shardfit.registry import Registry, default_registry
from shardfit.run import Run, TrainResult
from shardfit.run_plan import RunPlan, plan_profiled, plan_run, replan
from shardfit.trainer import RunSettings, WorkerReport
from shardfit.worker import WorkerShard, train_worker


def train(
    job: Job,
    *,
    registry: Registry | None = None,
    observers: Sequence[EventSink] = (),
    cancellation: Cancellation | None = None,
) -> TrainResult:
    """Train the model that `job` describes and publish it.

    Args:
        job: What to train, on what, how.
        registry: Where trainers, sources and the rest come from; the installed plugins if None.
        observers: Called with every event, on this thread, beside the observers among the plugins.
        cancellation: Ends the run from another thread.

    Returns:
        The model, its metrics, the proof of coverage, and where it was published.

    Raises:
        ShardfitError: See `shardfit.errors`; nothing is published unless everything went well.
    """
    registry = registry or default_registry()
    return run_to_end(Run.start(job, registry, observers, cancellation), registry)


def run_to_end(run: Run, registry: Registry) -> TrainResult:
    """Plan, train and publish: a new run, or one that is resumed.

    Args:
        run: Not entered yet.
        registry: Where trainers, sources and the rest come from.

    Raises:
        ShardfitError: As for `train`.
    """
    with run:
        with run.phase("plan"):
            plan = plan_run(run.job, registry, current_resources(engine=run.job.engine))
        known = KnownProfile()
        reports = _train_until_done(run, plan, registry, known)
        coverage = check_coverage([report.coverage for report in reports], known.content)
        model = plan.trainer.collect([report.value for report in reports])
        with run.phase("publish"):
            return run.publish(plan, model, coverage)


def _train_until_done(run: Run, plan: RunPlan, registry: Registry, known: KnownProfile) -> list[WorkerReport]:
    engine = make_engine(plan.layout.engine)
    while True:
        run.planned(plan)
        try:
            with run.phase("start"):
                workers = engine.start(plan.layout, run.attempt, run.cancellation)
            with workers, run.cancellation.calling(workers.cancel):
                return train_attempt(run, plan, workers, known)
        except WorkerLostError as lost:
            run.lost(lost)
            layout = layout_after_loss(lost, plan, registry, engine, run.emit, run.cancellation)
            plan = replan(plan, registry, layout)


def train_attempt(run: Run, plan: RunPlan, workers: WorkerGroup, known: KnownProfile) -> list[WorkerReport]:
    """Profile, bin and fit on running workers; return what each ends with, by rank.

    Args:
        run: Receives the events.
        plan: What to do; made for the layout of `workers`.
        workers: Running, and still so afterwards.
        known: The profile, if an earlier attempt has made it; takes it otherwise.

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
    if plan.trainer.deals_rows:
        settings = replace(settings, fragments={name: part.fragments for name, part in plan.datasets.items()})
    if isinstance(plan.trainer, BinnedTrainer):
        with run.phase("profile"):
            profile = partial(profile_datasets, plan, plan.trainer, workers, sources, shards, run.on_event)
            made = known.of(plan, plan.trainer, profile)
            plan = plan_profiled(plan, made.config, made.profile, sum(map(len, made.reference.cut_points)))
            run.profiled(made.profile, plan)
            config, settings = plan.config, replace(settings, reference=made.reference)
            settings = replace(settings, keep_bins=run.bin_keeping(plan))
        del made  # Its sample would take memory for as long as training lasts.
    shared = [workers.share(value) for value in (plan.trainer, config, settings)]
    with run.phase("train"), plan.trainer.rendezvous(workers) as meeting:
        arguments = [(sources, part, *shared, meeting) for part in shards]
        return workers.run(train_worker, arguments, run.on_event)


def _shards_of(plan: RunPlan, rank: int) -> dict[str, WorkerShard]:
    return {
        name: WorkerShard(dataset.shard_plan.shard(rank, dataset.fragments), plan.roles.all)
        for name, dataset in plan.datasets.items()
    }
