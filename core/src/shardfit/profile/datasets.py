"""The profile of whole datasets: every worker reads its shards once, the driver merges what they learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardfit.binned_trainer import BinnedTrainer, BinReference
from shardfit.engine import Shared, WorkerGroup
from shardfit.events import EventSink
from shardfit.profile.shard import ProfileRequest, check_weights
from shardfit.profile.summary import Profile, SampleSpec
from shardfit.run_plan import RunPlan
from shardfit.trainer import TRAIN
from shardfit.worker import WorkerShard, profile_worker

MOST_SAMPLE_ROWS = 200_000
MOST_SAMPLE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ProfiledDatasets:
    """What the profile pass gives.

    Args:
        profile: Of the whole training data.
        config: The trainer's configuration, completed with what the profile says.
        reference: The bins of every matrix.
    """

    profile: Profile
    config: Any
    reference: BinReference


def profile_datasets(
    plan: RunPlan,
    trainer: BinnedTrainer,
    workers: WorkerGroup,
    sources: Shared,
    shards: Sequence[Mapping[str, WorkerShard]],
    on_event: EventSink,
) -> ProfiledDatasets:
    """Profile every dataset on its workers, merge the profiles, and choose the bins. Called once an attempt.

    Args:
        plan: Of this attempt.
        trainer: That of the plan.
        workers: Running.
        sources: Dataset name -> source, shared with the workers.
        shards: Each worker's shards, by rank.
        on_event: Receives the workers' events.

    Raises:
        InvalidValueError: A label, weight or feature has a value that cannot be trained on.
    """
    request = _request(plan, trainer)
    arguments = [(sources, part, trainer, plan.config, request) for part in shards]
    parts = workers.run(profile_worker, arguments, on_event)
    profiles = {name: Profile.merge(part[name] for part in parts) for name in plan.datasets}
    for name, profile in profiles.items():
        check_weights(name, profile, plan.roles)
        trainer.check_labels(plan.config, name, profile)
    merged = profiles[TRAIN]
    content = {name: tuple(part[name].content for part in parts) for name in plan.datasets}
    config = trainer.with_profile(plan.config, merged)
    max_bin, missing = trainer.max_bin(config), trainer.missing(config)
    reference = BinReference.from_profile(merged, plan.roles, plan.casts, max_bin, missing, content)
    gapless = {name: tuple(part[name].gapless for part in parts) for name in plan.datasets}
    reference = replace(reference, gapless=gapless)
    return ProfiledDatasets(merged, config, reference)


def _request(plan: RunPlan, trainer: BinnedTrainer) -> ProfileRequest:
    rows, columns = plan.datasets[TRAIN].shard_plan.rows, len(plan.roles.features)
    sample = SampleSpec.within(plan.job.seed, rows, columns, MOST_SAMPLE_ROWS, MOST_SAMPLE_BYTES)
    sample = replace(sample, distinct=max(sample.distinct, 2 * trainer.max_bin(plan.config)))
    nothing = SampleSpec(plan.job.seed, 0.0, 0)
    specs = {name: sample if name == TRAIN else nothing for name in plan.datasets}
    terms = trainer.terms(plan.config, plan.roles)
    return ProfileRequest(plan.roles, plan.casts, trainer.missing(plan.config), terms, specs)
