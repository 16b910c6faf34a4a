"""How many workers run a loop, with what: what users write, and what a run is configured with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from shardfit.errors import InvalidArgumentError, UnknownParameterError
from shardfit_pytorch.user_loop import UserLoop

PARAMETERS = ("train_func", "hyper_params", "datasets")


@dataclass(frozen=True, slots=True)
class WorkerResourceConfig:
    """What each worker is given.

    Args:
        num_cpus: CPUs that are set aside for it, and its threads; None for its share of its node, and 0 to set none
            aside, so that there can be more workers than CPUs.
        num_gpus: GPUs of each worker, 0 or more.

    Raises:
        InvalidArgumentError: A number is negative, or no whole number.
    """

    num_cpus: int | None = None
    num_gpus: int = 0

    def __post_init__(self) -> None:
        if self.num_cpus is not None:
            _check_whole("WorkerResourceConfig.num_cpus", self.num_cpus, 0)
        _check_whole("WorkerResourceConfig.num_gpus", self.num_gpus, 0)


@dataclass(frozen=True, slots=True)
class PyTorchScalingConfig:
    """How many workers run the loop. The default is everything there is, and the plan says why.

    Args:
        num_nodes: Machines; None for all that can run a worker.
        num_workers_per_node: Workers on each; None for one for each GPU, or one where there are none.
        resource_requirements_per_worker: What each worker is given; None for a GPU if there are any, else its share
            of the CPUs.

    Raises:
        InvalidArgumentError: A number is less than 1, or no whole number.
    """

    num_nodes: int | None = None
    num_workers_per_node: int | None = None
    resource_requirements_per_worker: WorkerResourceConfig | None = None

    def __post_init__(self) -> None:
        for name in ("num_nodes", "num_workers_per_node"):
            if (value := getattr(self, name)) is not None:
                _check_whole(f"PyTorchScalingConfig.{name}", value, 1)
        resources = self.resource_requirements_per_worker
        if resources is not None and not isinstance(resources, WorkerResourceConfig):
            raise InvalidArgumentError(
                "reading PyTorchScalingConfig.resource_requirements_per_worker",
                f"found {resources!r}",
                "Use a WorkerResourceConfig.",
            )


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """How the loop sees one dataset of the run.

    Args:
        name: What the run calls it: `train`, or the name of an evaluation set.
        sharded: Whether its rows are dealt to the workers; else each worker reads all of them.
        equal: Whether rows that do not divide evenly are dropped, so that every worker has as many.
    """

    name: str
    sharded: bool = True
    equal: bool = False


@dataclass(frozen=True)
class PyTorchConfig:
    """Everything that the workers need to know beside the data.

    Args:
        loop: The user's loop.
        hyper_params: Any JSON values, by name.
        datasets: The loop's name of a dataset -> how it sees it; None for all datasets of the run, sharded.
    """

    loop: UserLoop
    hyper_params: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, DatasetUse] | None = None


def configure(params: Mapping[str, Any]) -> PyTorchConfig:
    """Return the configuration that `params` ask for.

    Args:
        params: `train_func`, and if wanted `hyper_params`.

    Raises:
        UnknownParameterError: Another parameter is there; suggests the nearest name.
        InvalidArgumentError: The loop cannot be called, or a hyper-parameter is no JSON value.
    """
    for name in params:
        if name not in PARAMETERS:
            near = get_close_matches(name, PARAMETERS, n=1)
            advice = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(map(repr, PARAMETERS[:2]))}."
            raise UnknownParameterError(f"reading parameter {name!r}", "the trainer has no such parameter", advice)
    if "train_func" not in params:
        raise InvalidArgumentError("training with PyTorch", "there is no 'train_func'", "Pass the loop to run.")
    loop = UserLoop.of(params["train_func"])
    return PyTorchConfig(loop, check_hyper_params(params.get("hyper_params") or {}), params.get("datasets"))


def check_hyper_params(values: Any, what: str = "hyper_params") -> dict[str, Any]:
    """Return a copy of hyper-parameters that holds nothing but what JSON has.

    Args:
        values: By name.
        what: What messages call them.

    Raises:
        InvalidArgumentError: They are no mapping with text as keys, or one is no JSON value; says which.
    """
    if not isinstance(values, Mapping):
        raise InvalidArgumentError(f"reading {what}", f"found {values!r}", "Use a dict of names and JSON values.")
    return {_checked_key(name, what): _json(value, f"{what}[{name!r}]") for name, value in values.items()}


def _json(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {_checked_key(key, where): _json(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgumentError(f"reading {where}", f"found {value!r}", "JSON has finite numbers only.")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise InvalidArgumentError(
        f"reading {where}",
        f"found {value!r}, a {type(value).__module__}.{type(value).__qualname__}",
        "Hyper-parameters are JSON values: text, numbers, true and false, None, lists, dicts. "
        f"{_json_advice(value)}Make other objects inside the loop.",
    )


def _json_advice(value: Any) -> str:
    return "Use value.item(). " if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else ""


def _checked_key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise InvalidArgumentError(f"reading {where}", f"found the key {key!r}", "Names are text, as JSON has them.")
    return key


def _check_whole(where: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgumentError(f"reading {where}", f"found {value!r}", f"Use a whole number, {least} or more.")
