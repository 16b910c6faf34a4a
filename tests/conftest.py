"""What holds for every test: Hypothesis profiles, a stage root that is thrown away, and one Ray cluster for all."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from inspect import getattr_static

import pytest
from hypothesis import HealthCheck, settings

from shardfit.testing import TrainerKit
from shardfit.testing.trainer_kit import cluster_of_session
from tests.shardfit.worker_processes import ProcessEngine, training_on

# Read when libraries are loaded, which test files do after this. The processes that run tests share the CPUs, and
# threads that wait for each other by spinning take one from the test beside them: up to ten times the time of a test.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Ray lets every other process of the machine go first, and those are tests here.
os.environ.setdefault("RAY_worker_niceness", "0")

# Ray Data's thread that polls for usage statistics outlives `ray.shutdown`; if it asks while that lasts, Ray ends the
# whole process.
os.environ["RAY_DATA_USAGE_DISABLED"] = "1"

# A deadline is an assertion about time; `too_slow` is one about the machine.
_SHARED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples in every run, so that a change alone turns a test red; `explore` looks for new ones.
settings.register_profile("dev", max_examples=50, derandomize=True, **_SHARED)
settings.register_profile("ci", max_examples=200, derandomize=True, print_blob=True, **_SHARED)
settings.register_profile("explore", max_examples=1000, print_blob=True, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


_SERVERS = {"rclone_server", "moto_server", "azurite_server", "gcs_server"}
# What takes longest is handed out first, so that no process is left with it at the end.
_FIRST = ("hosts", "ray", "wheels", "object servers")


def pytest_configure(config: pytest.Config) -> None:
    """Hand out groups in the order of their tests, where pytest-xdist would begin with those of the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests one process runs: all that start Ray, as two of one host would be in each other's way.

    Those of a file, too, so that what they share is made once, and what they import is imported once.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        # What the trainer kit calls a cluster is Ray, where no other is lent to it.
        lent = getattr_static(getattr(item, "cls", None), "cluster", None) is not vars(TrainerKit)["cluster"]
        if {"ray_address", "lasting_ray_address"} & fixtures or ("cluster" in fixtures and not lent):
            item.add_marker(pytest.mark.ray)
        if item.get_closest_marker("xdist_group"):
            continue
        if item.get_closest_marker("cluster"):
            # Its hosts have networks and files of their own, in which they meet no Ray of this host.
            item.add_marker(pytest.mark.xdist_group("hosts"))
        elif item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))
        else:
            # Some name their server as a parameter.
            given = item.callspec.params.values() if hasattr(item, "callspec") else ()
            served = _SERVERS & (fixtures | {value for value in given if isinstance(value, str)})
            item.add_marker(pytest.mark.xdist_group("object servers" if served else item.nodeid.partition("::")[0]))
    groups = {item: item.get_closest_marker("xdist_group").args[0] for item in items}
    items.sort(key=lambda item: _FIRST.index(groups[item]) if groups[item] in _FIRST else len(_FIRST))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run where groups do not hold: pytest-xdist 3.8 does not group under pytest 9.2, and says nothing."""
    if not session.config.getoption("loadgroup", default=False):
        return
    for item in session.items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} is in a group that this pytest-xdist does not keep in one process.")


@pytest.fixture(scope="session", autouse=True)
def stage_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests publish away from the user's own stages; worker processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARDFIT_STAGE_ROOT", str(tmp_path_factory.mktemp("stages")))
        yield


@pytest.fixture(autouse=True)
def kills_by_the_kernel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests that let the kernel kill for want of memory apart from those of lost workers.

    What a worker was lost by is asked of the kernel, which counts for the whole machine.
    """
    item = request.node
    kills = item.get_closest_marker("kills") is not None
    if not kills and not item.get_closest_marker("ray") and not item.get_closest_marker("cluster"):
        yield
        return
    # Beside the folders of all processes that run these tests.
    with (tmp_path_factory.getbasetemp().parent / "kills-by-the-kernel").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if kills else fcntl.LOCK_SH)
        try:
            yield
        finally:
            # Not by closing it: a process that was forked meanwhile has it, too.
            fcntl.flock(file, fcntl.LOCK_UN)


@pytest.fixture(scope="session")
def shared_ray_cluster(pytestconfig: pytest.Config) -> str:
    """Keep one Ray cluster of four CPUs, that of the kits, beside the tests; returns its address."""
    return cluster_of_session(pytestconfig)


@pytest.fixture
def ray_address(shared_ray_cluster: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let a test find the cluster as `RAY_ADDRESS`; afterwards this process has left it, so other tests find none."""
    monkeypatch.setenv("RAY_ADDRESS", shared_ray_cluster)
    yield shared_ray_cluster
    leave_ray()


@pytest.fixture(scope="module")
def lasting_ray_address(shared_ray_cluster: str) -> Iterator[str]:
    """Do the same for all tests of a module at once: joining a cluster takes a second or more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", shared_ray_cluster)
        yield shared_ray_cluster
    leave_ray()


def leave_ray() -> None:
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.fixture
def four_processes() -> Iterator[ProcessEngine]:
    """Let a test train on up to four processes of this machine wherever it asks for the engine `ray`."""
    with training_on(4) as engine:
        yield engine
