"""Whether there is a Ray cluster to use, found out without importing Ray; and the engine that fits."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from shardfit.engine import Engine
from shardfit.engines.addresses import answers
from shardfit.engines.inline import InlineEngine
from shardfit.errors import InfeasibleRequestError, InvalidArgumentError
from shardfit.scaling import ClusterResources

ADDRESS_VARIABLE = "RAY_ADDRESS"


def current_resources(
    environ: Mapping[str, str] | None = None, engine: Literal["auto", "inline", "ray"] = "auto"
) -> ClusterResources:
    """Return the nodes of the Ray cluster that is there, or this machine alone. Starts nothing unless told to use Ray.

    Args:
        environ: Where `RAY_ADDRESS` and the like are looked up; the process's environment if None.
        engine: `auto` for the cluster that is there, else `inline` for this machine, or `ray` for a cluster in any
            case: a local one is started if none is there.
    """
    environ = os.environ if environ is None else environ
    if engine == "auto":
        engine = "inline" if find_cluster(environ) is None else "ray"
    return make_engine(engine, environ).resources()


def make_engine(name: Literal["inline", "ray"], environ: Mapping[str, str] | None = None) -> Engine:
    """Return the engine called `name`. The Ray engine connects, or starts a local Ray, when it is first used.

    Args:
        name: `inline` or `ray`.
        environ: Where `RAY_ADDRESS` and the like are looked up; the process's environment if None.

    Raises:
        InfeasibleRequestError: Ray is asked for and not installed.
        InvalidArgumentError: There is no such engine.
    """
    environ = os.environ if environ is None else environ
    if name == "inline":
        return InlineEngine(environ)
    if name != "ray":
        raise InvalidArgumentError("choosing an engine", f"found {name!r}", "Use 'inline' or 'ray'.")
    if find_spec("ray") is None:
        raise InfeasibleRequestError(
            "running workers beside this process", "Ray is not installed", "Install it: pip install 'shardfit[ray]'."
        )
    # Importing Ray takes a second, which a run in this process should not pay.
    from shardfit.engines.ray import RayEngine

    return RayEngine(environ)


def find_cluster(environ: Mapping[str, str]) -> str | None:
    """Return the address of the Ray cluster to use, or None. Cheap; does not import Ray.

    In this order: the cluster that this process is connected to already (unless shardfit itself started it); the one
    that `RAY_ADDRESS` names; the one that `ray start` left running on this machine.

    Args:
        environ: Where `RAY_ADDRESS`, `RAY_TMPDIR` and `TMPDIR` are looked up.

    Raises:
        InfeasibleRequestError: `RAY_ADDRESS` names a cluster that does not answer.
        InvalidArgumentError: `RAY_ADDRESS` is no address of a cluster that this process could join.
    """
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ours = sys.modules.get("shardfit.engines.ray")
        if ours is not None and ours.started_here():
            return None
        return str(ray.get_runtime_context().gcs_address)
    named = environ.get(ADDRESS_VARIABLE, "")
    if named == "local":
        return None
    if named and named != "auto":
        return _check_named(named)
    found = _running_here(environ)
    if named == "auto" and found is None:
        raise InfeasibleRequestError(
            "joining the Ray cluster of this machine, as RAY_ADDRESS='auto' asks for",
            "none is running",
            "Start one with `ray start --head`, or unset RAY_ADDRESS.",
        )
    return found


def has_token(environ: Mapping[str, str]) -> bool:
    """Return whether there is a token for clusters with authentication, where Ray looks for one."""
    if environ.get("RAY_AUTH_TOKEN") or environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    home = environ.get("HOME")
    return home is not None and (Path(home) / ".ray" / "auth_token").is_file()


def _check_named(address: str) -> str:
    asked = f"joining the Ray cluster at RAY_ADDRESS={address!r}"
    if "://" in address:
        raise InvalidArgumentError(
            asked,
            "the address is that of a Ray client or of the jobs service, which gives no place in the cluster",
            "Run this program on a machine of the cluster, for example with `ray job submit`.",
        )
    if not answers(address):
        raise InfeasibleRequestError(
            asked, "nothing answers there", "Start the cluster, correct the address, or unset RAY_ADDRESS."
        )
    return address


def _running_here(environ: Mapping[str, str]) -> str | None:
    folder = environ.get("RAY_TMPDIR") or (environ.get("TMPDIR") if sys.platform == "linux" else None) or "/tmp"  # noqa: S108
    try:
        address = (Path(folder) / "ray" / "ray_current_cluster").read_text().strip()
    except OSError:
        return None
    # The file outlives a cluster that was killed.
    return address if find_spec("ray") is not None and answers(address) else None


def refused(address: str, error: Exception) -> InfeasibleRequestError:
    """Return the error for a cluster that is there and did not let this process in.

    Args:
        address: Of the cluster.
        error: What Ray raised.
    """
    return InfeasibleRequestError(
        f"joining the Ray cluster at {address!r}",
        f"{type(error).__name__}: {error}",
        "A cluster with authentication needs its token in ~/.ray/auth_token or RAY_AUTH_TOKEN here too; "
        "and Python and Ray must be of the same version everywhere.",
    )
