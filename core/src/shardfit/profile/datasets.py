"""The profile of whole datasets: every worker reads its shards once, the driver merges what they learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardfit.binned_trainer import BinnedTrainer, BinReference
from shardfit.engine import Shared, WorkerGroup
from shardfit.events import EventSink
from shardfit.profile.samples import MOST_SAMPLE_BYTES, MOST_SAMPLE_ROWS, SampleSpec
from shardfit.profile.shard import ProfileRequest, check_weights
from shardfit.profile.summary import Profile
from shardfit.run_plan import RunPlan
from shardfit.sparse import SAMPLED_VALUE_BYTES, most_distinct
from shardfit.trainer import TRAIN
from shardfit.worker import WorkerShard, profile_worker


@dataclass(frozen=True)
class ProfiledDatasets:
    """What the profile pass gives.

    Args:
        profile: Of the whole training data.
        config: The trainer's configuration, completed with what the profile says.
        reference: The bins of every matrix.
        content: Dataset name -> digest of what all its rows hold.
    """

    profile: Profile
    config: Any
    reference: BinReference
    content: Mapping[str, int]

    def of_later_attempts(self) -> ProfiledDatasets:
        """Return what holds however the rows are divided, without the sample, which takes memory and is not needed."""
        gapless = {name: (all(parts),) for name, parts in self.reference.gapless.items()}
        reference = replace(self.reference, content={}, gapless=gapless)
        return replace(self, profile=self.profile.without_sample(), reference=reference)

    def on(self, plan: RunPlan, trainer: BinnedTrainer) -> ProfiledDatasets | None:
        """Return the same for the workers of another attempt; None if its bins are others.

        Args:
            plan: Of that attempt.
            trainer: That of the plan.
        """
        config = trainer.with_profile(plan.config, self.profile)
        if trainer.max_bin(config) != self.reference.spec.max_bin:
            return None
        gapless = {name: known * plan.layout.workers for name, known in self.reference.gapless.items()}
        return replace(self, config=config, reference=replace(self.reference, gapless=gapless))


class KnownProfile:
    """The profile of the data of a run: made once, by the first attempt that comes to its end, and kept for later ones.

    It is the same for any number of workers, so what a lost worker costs is no second look at all rows.
    """

    def __init__(self) -> None:
        self._known: ProfiledDatasets | None = None

    @property
    def content(self) -> Mapping[str, int]:
        """Dataset name -> digest of what all its rows held when they were profiled."""
        return self._known.content if self._known else {}

    def of(self, plan: RunPlan, trainer: BinnedTrainer, profile: Callable[[], ProfiledDatasets]) -> ProfiledDatasets:
        """Return the profile for an attempt.

        Args:
            plan: Of the attempt.
            trainer: That of the plan.
            profile: Makes it where it is not known.
        """
        if self._known is not None and (again := self._known.on(plan, trainer)) is not None:
            return again
        made = profile()
        self._known = made.of_later_attempts()
        return made


def profile_datasets(
    plan: RunPlan,
    trainer: BinnedTrainer,
    workers: WorkerGroup,
    sources: Shared,
    shards: Sequence[Mapping[str, WorkerShard]],
    on_event: EventSink,
) -> ProfiledDatasets:
    """Profile every dataset on its workers, merge the profiles, and choose the bins.

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
    return ProfiledDatasets(merged, config, reference, {name: whole.content for name, whole in profiles.items()})


def _request(plan: RunPlan, trainer: BinnedTrainer) -> ProfileRequest:
    sample = _sample(plan, trainer.max_bin(plan.config))
    nothing = SampleSpec(plan.job.seed, 0.0, 0)
    specs = {name: sample if name == TRAIN else nothing for name in plan.datasets}
    terms = trainer.terms(plan.config, plan.roles)
    return ProfileRequest(plan.roles, plan.casts, trainer.missing(plan.config), terms, specs)


def _sample(plan: RunPlan, max_bin: int) -> SampleSpec:
    train, features = plan.datasets[TRAIN], plan.casts[0].features
    rows, columns = train.shard_plan.rows, len(plan.roles.features)
    if features:
        # Of a value, its row, feature and weight are kept as well: five columns' worth.
        values = sum(fragment.values or 0 for fragment in train.fragments)
        columns = -(-SAMPLED_VALUE_BYTES * values // (4 * max(rows, 1)))
    sample = SampleSpec.within(plan.job.seed, rows, columns, MOST_SAMPLE_ROWS, MOST_SAMPLE_BYTES)
    distinct = max(sample.distinct, 2 * max_bin)
    return replace(sample, distinct=most_distinct(features, distinct, max_bin) if features else distinct)
