"""Everything that is decided before a worker starts: what `shardfit plan` prints and `train` carries out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from shardfit.casts import ColumnCast, decoded_width, plan_casts, same_categories
from shardfit.columns import ColumnRoles
from shardfit.data_shape import DataShape
from shardfit.errors import DataError, EmptyDataError, InvalidArgumentError, SchemaMismatchError, UnsupportedTypeError
from shardfit.groups import build_group_index
from shardfit.job import Job
from shardfit.memory_fit import check_memory, memory_of, plan_memory, with_kept_bins
from shardfit.memory_plan import MemoryPlan
from shardfit.profile import Profile
from shardfit.registry import Registry
from shardfit.scaling import ClusterResources, ScalingRequest, WorkerLayout
from shardfit.shard_plan import ShardingConstraints, ShardPlan, World
from shardfit.source import DataSource, Fragment
from shardfit.sparse import ENTRY_BYTES
from shardfit.trainer import TRAIN, Trainer


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """One dataset and who reads what of it.

    Args:
        source: Where the rows are.
        fragments: In global row order.
        constraints: What the strategy had to respect.
        shard_plan: Which worker reads which rows.
    """

    source: DataSource
    fragments: Sequence[Fragment]
    constraints: ShardingConstraints
    shard_plan: ShardPlan

    @property
    def bytes(self) -> int:
        """Approximate decoded bytes of all columns, as far as the source knows."""
        return sum(fragment.bytes or 0 for fragment in self.fragments)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan of this dataset as plain values."""
        return {
            "source": self.source.describe(),
            "fragments": len(self.fragments),
            "rows": self.shard_plan.rows,
            "bytes": self.bytes,
            "strategy": self.shard_plan.strategy,
            "digest": self.shard_plan.digest,
            "worker_rows": self.shard_plan.worker_rows.tolist(),
            "worker_slices": (self.shard_plan.worker_offsets[1:] - self.shard_plan.worker_offsets[:-1]).tolist(),
        }


@dataclass(frozen=True, eq=False)
class RunPlan:
    """What a run will do.

    Args:
        job: What was asked for.
        trainer: The plugin.
        config: The trainer's configuration, as it gets by with the workers' memory.
        asked_config: What the trainer's `configure` returned.
        roles: Resolved column roles.
        casts: One a column of `roles.all`.
        request: What the scaling policy was asked.
        layout: Where workers run, and why.
        datasets: `train` and the evaluation sets, by name.
        memory: What the memory of the largest worker goes to.
        passes: How often each shard is read.
        warnings: What the user should know.
    """

    job: Job
    trainer: Trainer
    config: Any
    asked_config: Any
    roles: ColumnRoles
    casts: tuple[ColumnCast, ...]
    request: ScalingRequest
    layout: WorkerLayout
    datasets: Mapping[str, DatasetPlan]
    memory: MemoryPlan
    passes: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values that JSON can hold."""
        slots = [
            {"rank": slot.rank, "node": slot.node, "cpus": slot.cpus, "gpus": slot.gpus, "memory": slot.memory}
            for slot in self.layout.slots
        ]
        return {
            "trainer": self.job.trainer,
            "engine": self.layout.engine,
            "workers": slots,
            "reasons": list(self.layout.reasons),
            "features": list(self.roles.features),
            "label": list(self.roles.label),
            "casts": [
                {"column": c.name, "type": c.arrow_type, "rule": c.rule, "note": c.note}
                | ({"features": c.features} if c.features else {})
                for c in self.casts
            ],
            "datasets": {name: dataset.to_dict() for name, dataset in self.datasets.items()},
            "passes": self.passes,
            "memory_per_worker": self.memory.to_dict(),
            "warnings": list(self.warnings),
        }


def plan_run(job: Job, registry: Registry, cluster: ClusterResources) -> RunPlan:
    """Return everything that a run of `job` on `cluster` would do; reads metadata and group columns only.

    Args:
        job: What is asked for.
        registry: Where trainers, sources, strategies and policies come from.
        cluster: What there is to run on; `shardfit.engines.current_resources()` finds out.

    Raises:
        ShardfitError: Whatever can be known to be wrong before a worker starts.
    """
    trainer = registry.trainer(job.trainer)
    config = trainer.configure(job.params)
    trainer.check_evals(config, tuple(job.evals))
    sources = {TRAIN: job.data.resolve(registry)}
    sources |= {name: connector.resolve(registry) for name, connector in job.evals.items()}
    sources = {name: source.for_passes(trainer.passes(config)) for name, source in sources.items()}
    schema = sources[TRAIN].schema()
    roles = trainer.columns(config, job.columns, schema)
    casts = _plan_casts(job, trainer, roles, {name: source.schema() for name, source in sources.items()})
    fragments = {name: _fragments(name, source) for name, source in sources.items()}
    request = _scaling_request(job, fragments[TRAIN], schema, roles)
    request, device_reasons = _without_gpu(request, trainer.why_no_gpu(config))
    layout = registry.get("scaling_policies", job.scaling).decide(cluster, request)
    layout = replace(layout, reasons=(*layout.reasons, *device_reasons))
    constraints = {name: _constraints(name, source, roles) for name, source in sources.items()}
    layout, plans = plan_shards(job, registry, layout, fragments, constraints, trainer.deals_rows)
    datasets = {name: DatasetPlan(sources[name], fragments[name], constraints[name], plans[name]) for name in sources}
    asked_config = config
    config, layout, memory, memory_warnings = _memory(
        job, trainer, asked_config, layout, _shape(datasets, roles, layout, casts)
    )
    warnings = (
        *trainer.warnings(config, roles, layout),
        *(f"{cast.name}: {cast.note}" for cast in casts if cast.note),
        *(warning for source in sources.values() for warning in source.warnings()),
        *memory_warnings,
    )
    passes = trainer.passes(config)
    return RunPlan(
        job, trainer, config, asked_config, roles, casts, request, layout, datasets, memory, passes, tuple(warnings)
    )


def plan_shards(
    job: Job,
    registry: Registry,
    layout: WorkerLayout,
    fragments: Mapping[str, Sequence[Fragment]],
    constraints: Mapping[str, ShardingConstraints],
    keep_workers: bool = False,
) -> tuple[WorkerLayout, dict[str, ShardPlan]]:
    """Return who reads what of each dataset, and the layout without the workers that the data leaves empty.

    Args:
        job: Names the strategy, and has the seed.
        registry: Where the strategy comes from.
        layout: What the scaling policy decided.
        fragments: Dataset name -> its fragments, in global row order; `train` is one.
        constraints: Dataset name -> what the strategy must respect.
        keep_workers: Keep workers that have no row of the training data.
    """
    name = job.sharding
    if name == "auto":
        name = "groups" if constraints[TRAIN].group_index is not None else "rows"
    strategy = registry.get("sharding_strategies", name)

    def plan(dataset: str, workers: int) -> ShardPlan:
        return strategy(fragments[dataset], World(workers), job.seed, constraints[dataset])

    train = plan(TRAIN, layout.workers)
    layout = layout if keep_workers else layout.first(train.workers)
    others = {dataset: plan(dataset, layout.workers) for dataset in fragments if dataset != TRAIN}
    return layout, {TRAIN: train, **others}


def replan(plan: RunPlan, registry: Registry, layout: WorkerLayout) -> RunPlan:
    """Return the plan of the next attempt, on another layout; nothing is read again.

    Args:
        plan: Of the attempt that failed.
        registry: Where the sharding strategy comes from.
        layout: What the next attempt runs on.
    """
    fragments = {name: dataset.fragments for name, dataset in plan.datasets.items()}
    constraints = {name: dataset.constraints for name, dataset in plan.datasets.items()}
    keep = plan.trainer.deals_rows
    layout, plans = plan_shards(plan.job, registry, layout, fragments, constraints, keep)
    datasets = {name: replace(dataset, shard_plan=plans[name]) for name, dataset in plan.datasets.items()}
    shape = _shape(datasets, plan.roles, layout, plan.casts)
    config, layout, memory, _ = _memory(plan.job, plan.trainer, plan.asked_config, layout, shape)
    return replace(plan, config=config, layout=layout, datasets=datasets, memory=memory)


def plan_profiled(plan: RunPlan, config: Any, profile: Profile, bins: int) -> RunPlan:
    """Return the plan with what the profile says of memory: values that are missing make matrices wider.

    Args:
        plan: Of this attempt.
        config: What the trainer's `with_profile` returned.
        profile: Of the whole training data.
        bins: How many all features have together.

    Raises:
        InfeasibleRequestError: The workers' memory will not do after all.
    """
    # Categories are not among the values that a profile counts.
    counted = [name not in profile.categories for name in plan.roles.features if profile.sparse is None]
    gapless = profile.sparse is None and not profile.missing[counted].any()
    shape = replace(_shape(plan.datasets, plan.roles, plan.layout, plan.casts), gapless=gapless, bins=bins)
    config, layout, memory, warnings = _memory(plan.job, plan.trainer, config, plan.layout, shape)
    new = tuple(warning for warning in warnings if warning not in plan.warnings)
    return replace(plan, config=config, layout=layout, memory=memory, warnings=(*plan.warnings, *new))


@contextmanager
def _about(dataset: str) -> Iterator[None]:
    """Let errors about the data say which dataset they are about."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"dataset {dataset!r}: {error.asked}", error.found, error.advice) from error


def _fragments(name: str, source: DataSource) -> Sequence[Fragment]:
    with _about(name):
        fragments = source.fragments()
        if not sum(fragment.rows for fragment in fragments):
            raise EmptyDataError(
                f"counting the rows of {source.describe()}",
                f"found none in {len(fragments)} fragments",
                "Training needs at least one row.",
            )
    return fragments


def _constraints(name: str, source: DataSource, roles: ColumnRoles) -> ShardingConstraints:
    with _about(name):
        return ShardingConstraints(build_group_index(source, roles.group) if roles.group else None)


def _group_alone(roles: ColumnRoles) -> str | None:
    """Return the group column unless it is a feature, too, and so becomes numbers."""
    return None if roles.group in roles.features else roles.group


def _plan_casts(
    job: Job, trainer: Trainer, roles: ColumnRoles, schemas: Mapping[str, pa.Schema]
) -> tuple[ColumnCast, ...]:
    if trainer.deals_rows:
        return ()
    training = schemas[TRAIN]
    sparse = roles.features if trainer.takes_sparse else ()
    casts = plan_casts(training, roles.all, roles.categorical, _group_alone(roles), sparse)
    _check_sparse_alone(roles, casts)
    for name in job.evals:
        with _about(name):
            _check_same_types(schemas[name], training, roles, casts, sparse)
    return casts


def _check_same_types(
    schema: pa.Schema,
    training: pa.Schema,
    roles: ColumnRoles,
    casts: tuple[ColumnCast, ...],
    sparse: tuple[str, ...],
) -> None:
    roles.resolve(schema)
    others = plan_casts(schema, roles.all, roles.categorical, _group_alone(roles), sparse)
    for cast, other in zip(casts, others, strict=True):
        types = schema.field(cast.name).type, training.field(cast.name).type
        if cast.rule != other.rule or (cast.rule == "category" and not same_categories(*types)):
            raise SchemaMismatchError(
                f"comparing column {cast.name!r} with the training data",
                f"it is {other.arrow_type}, there it is {cast.arrow_type}",
                "Make the types agree.",
            )
        if other.features > cast.features:
            raise SchemaMismatchError(
                f"comparing column {cast.name!r} with the training data",
                f"it has {other.features:,} features, there it has {cast.features:,}",
                "Say how many there are of the training data, too, with features= or in the metadata of its field; and "
                "check that indices start at the same number.",
            )


def _check_sparse_alone(roles: ColumnRoles, casts: tuple[ColumnCast, ...]) -> None:
    sparse = [cast.name for cast in casts if cast.rule == "sparse"]
    if sparse and len(roles.features) > 1:
        others = [name for name in roles.features if name != sparse[0]]
        raise UnsupportedTypeError(
            f"learning from the sparse column {sparse[0]!r}",
            f"there are other features: {', '.join(map(repr, others[:5]))}",
            f"Pass input_cols=[{sparse[0]!r}], queries as group_col, and give other values an index of their own.",
        )


def _scaling_request(job: Job, fragments: Sequence[Fragment], schema: pa.Schema, roles: ColumnRoles) -> ScalingRequest:
    known = sum(fragment.bytes or 0 for fragment in fragments)
    rows = sum(fragment.rows for fragment in fragments)
    narrow = known * len(roles.all) // len(schema) if known else 4 * rows * len(roles.all)
    return ScalingRequest(job.workers, job.cpus_per_worker, job.use_gpu, rows, narrow)


def _without_gpu(request: ScalingRequest, why: str | None) -> tuple[ScalingRequest, tuple[str, ...]]:
    """Return the request without GPUs where the trainer cannot use them, and what to say about it."""
    if why is None:
        return request, ()
    if request.use_gpu:
        raise InvalidArgumentError("training with use_gpu=True", why, "Use use_gpu=None or False.")
    return replace(request, use_gpu=False), (why,)


def _memory(
    job: Job, trainer: Trainer, config: Any, layout: WorkerLayout, shape: DataShape
) -> tuple[Any, WorkerLayout, MemoryPlan, tuple[str, ...]]:
    trainer.check_shape(config, shape)
    chosen, layout, memory = plan_memory(trainer, config, layout, shape)
    memory = memory if job.keep_bins == "never" else with_kept_bins(memory, trainer, chosen, shape)

    def needed(workers: int) -> int:
        less = shape.for_workers(workers, layout.workers)
        tried, _ = trainer.within_memory(config, less, memory.available)
        return memory_of(trainer, tried, less).peak

    return chosen, layout, memory, check_memory(job.memory_check, memory, needed, layout.workers)


def _shape(
    datasets: Mapping[str, DatasetPlan], roles: ColumnRoles, layout: WorkerLayout, casts: tuple[ColumnCast, ...]
) -> DataShape:
    largest = {name: int(dataset.shard_plan.worker_rows.max(initial=0)) for name, dataset in datasets.items()}
    rows = largest.pop(TRAIN)
    train = datasets[TRAIN]
    total = train.shard_plan.rows
    schema = train.source.schema()
    fragments = [fragment for dataset in datasets.values() for fragment in dataset.fragments]
    shape = DataShape(
        rows,
        total,
        len(roles.features),
        sum(largest.values()),
        row_bytes=sum(decoded_width(schema.field(name).type) for name in roles.all),
        columns=len(roles.all),
        fragment_rows=max(fragment.rows for fragment in fragments),
        # What is in memory has no version.
        file_rows=max((fragment.rows for fragment in fragments if fragment.version), default=0),
        shares_driver=layout.engine == "inline",
        on_gpu=layout.uses_gpu,
    )
    return _sparse_shape(shape, casts[0].features, datasets) if casts and casts[0].features else shape


def _sparse_shape(shape: DataShape, features: int, datasets: Mapping[str, DatasetPlan]) -> DataShape:
    largest = {
        name: max((shard.values for shard in dataset.shard_plan.shards(dataset.fragments)), default=0)
        for name, dataset in datasets.items()
    }
    values = largest.pop(TRAIN)
    total = sum(fragment.values or 0 for fragment in datasets[TRAIN].fragments)
    row_bytes = shape.row_bytes + ENTRY_BYTES * total // max(shape.total_rows, 1)
    evals = sum(largest.values())
    return replace(
        shape,
        features=features,
        values=values,
        eval_values=evals,
        total_values=total,
        row_bytes=row_bytes,
        gapless=False,
    )
