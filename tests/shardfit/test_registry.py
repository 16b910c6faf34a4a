"""Plugins: found through real distributions on the path, refused with reasons, never chosen by order."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfit.errors import (
    DuplicateNameError,
    InvalidArgumentError,
    PluginError,
    SourceNotFoundError,
    UnknownNameError,
)
from shardfit.events import Event, RunStarted
from shardfit.hookspecs import hookimpl
from shardfit.registry import PluginInfo, Registry
from shardfit.source import Claim, DataSource
from shardfit.sources.arrow import ArrowSource
from shardfit.stores.local import LocalStore

GOOD = """
from shardfit.hookspecs import hookimpl

@hookimpl
def shardfit_trainers():
    return {{"{name}": lambda: None}}
"""


class Opener:
    def __init__(self, priority: int | None, fails: bool = False) -> None:
        self.priority = priority
        self.fails = fails

    def claims(self, data: object) -> Claim | None:
        if self.fails:
            raise RuntimeError("password=hunter2")
        return None if self.priority is None or not isinstance(data, Thing) else Claim(self.priority, "a thing")

    def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
        return ArrowSource(pa.table({f"priority {self.priority}": [1]}))


class Thing:
    """What no built-in source claims."""


class Sources:
    def __init__(self, **openers: object) -> None:
        self.openers = openers

    @hookimpl
    def shardfit_sources(self) -> dict[str, object]:
        return self.openers


class Trainers:
    def __init__(self, **providers: object) -> None:
        self.providers = providers

    @hookimpl
    def shardfit_trainers(self) -> dict[str, object]:
        return self.providers


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that lays a distribution with one plugin on the path, as pip would."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(
        name: str, code: str, requires: str = "shardfit>=0.1", entry_point: str = "", version: str = "1.2"
    ) -> None:
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(code)
        information = tmp_path / f"{module}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: {requires}\n"
        )
        (information / "entry_points.txt").write_text(f"[shardfit]\n{entry_point or name} = {module}\n")
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def info_of(registry: Registry, name: str) -> PluginInfo:
    (info,) = (info for info in registry.describe() if info.name == name)
    return info


def test_the_builtins_are_there_without_discovery() -> None:
    registry = Registry()
    assert registry.names("sources") == ("arrow", "concat", "csv", "dataframe", "dataset", "parquet", "ray", "svmlight")
    assert registry.names("sharding_strategies") == ("bytes", "groups", "rows")
    assert registry.names("scaling_policies") == ("default",)
    assert registry.names("artifact_stores") == ("local",)
    assert registry.names("exporters") == ("ray",)
    assert registry.describe()[0].distribution == "shardfit"


def test_importing_the_registry_imports_no_framework_and_no_dataframe_library() -> None:
    heavy = {"ray", "xgboost", "lightgbm", "torch", "pandas", "polars", "duckdb", "sklearn"}
    code = f"import sys; from shardfit.registry import Registry as R; R(); print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_nothing_is_discovered_before_a_registry_is_asked_for(install: Any, tmp_path: Path) -> None:
    install("sf-loud", "print('loaded')")
    code = "import shardfit, shardfit.cli, shardfit_xgboost; print('imported'); a = shardfit.default_registry()"
    code += "; print(a is shardfit.default_registry())"
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "SHARDFIT_PLUGINS": "sf-loud"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout.split() == ["imported", "loaded", "True"]


def test_an_installed_plugin_is_found_with_its_distribution(install: Any) -> None:
    install("sf-good", GOOD.format(name="good"))
    registry = Registry()
    registry.discover({})
    assert info_of(registry, "sf-good") == PluginInfo("sf-good", "sf-good", "1.2", {"trainers": ("good",)})
    registry.discover({})
    assert registry.names("trainers").count("good") == 1


BROKEN = {
    "that cannot be imported": ("import does_not_exist", "ModuleNotFoundError"),
    "that is no Python": ("def", "SyntaxError"),
    "that leaves the process": ("raise SystemExit(3)", "SystemExit: 3"),
    "with a misspelt hook": (
        "from shardfit.hookspecs import hookimpl\n@hookimpl\ndef shardfit_trainer(): return {}",
        "unknown hook 'shardfit_trainer'",
    ),
    "with a hook that is not marked": ("def shardfit_trainers(): return {}", "not marked"),
    "with an argument that the hook lacks": (
        "from shardfit.hookspecs import hookimpl\n@hookimpl\ndef shardfit_on_event(evnt): pass",
        "evnt",
    ),
    "whose hook raises": (
        "from shardfit.hookspecs import hookimpl\n@hookimpl\ndef shardfit_trainers(): raise KeyError('x')",
        "KeyError",
    ),
    "that returns no mapping": (
        "from shardfit.hookspecs import hookimpl\n@hookimpl\ndef shardfit_trainers(): return ['x']",
        "Return a mapping",
    ),
    "that names something without text": (
        "from shardfit.hookspecs import hookimpl\n@hookimpl\ndef shardfit_trainers(): return {1: print}",
        "Names are text",
    ),
    "whose opener lacks a method": (
        "from shardfit.hookspecs import hookimpl\n@hookimpl\ndef shardfit_sources(): return {'x': print}",
        "lacks claims, open",
    ),
    "with the name of a built-in": (
        "from shardfit.hookspecs import hookimpl\nfrom shardfit.sources.arrow import ArrowOpener\n"
        "@hookimpl\ndef shardfit_sources(): return {'parquet': ArrowOpener()}",
        "'builtin' and 'sf-broken'",
    ),
}


@pytest.mark.parametrize(("code", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_plugin_is_reported_as_broken_and_the_others_work(
    install: Any, caplog: pytest.LogCaptureFixture, code: str, reason: str
) -> None:
    install("sf-broken", code)
    install("sf-good", GOOD.format(name="good"))
    registry = Registry()
    registry.discover({})
    broken = info_of(registry, "sf-broken")
    assert (broken.distribution, broken.version, dict(broken.provides)) == ("sf-broken", "1.2", {})
    assert reason in broken.error
    assert "sf-broken 1.2 is not used" in caplog.text
    assert "good" in registry.names("trainers")
    assert "parquet" in registry.names("sources")


@pytest.mark.parametrize("requires", ["shardfit>=9", "shardfit<0.1", "ShardFit ==0.0.1"])
def test_a_plugin_for_another_core_is_refused_and_says_what_to_install(install: Any, requires: str) -> None:
    install("sf-other", GOOD.format(name="other"), requires)
    registry = Registry()
    registry.discover({})
    assert "other" not in registry.names("trainers")
    assert "pip install --upgrade sf-other" in info_of(registry, "sf-other").error


@pytest.mark.parametrize("requires", ["shardfit>=0.1.0,<0.2", "shardfit", "numpy", "shardfit>=9; extra == 'new'"])
def test_a_plugin_whose_requirement_is_met_is_used(install: Any, requires: str) -> None:
    install("sf-fits", GOOD.format(name="fits"), requires)
    registry = Registry()
    registry.discover({})
    assert "fits" in registry.names("trainers")


def test_two_installed_plugins_with_one_name_are_an_error_when_it_is_used(install: Any) -> None:
    install("sf-one", GOOD.format(name="same"))
    install("sf-two", GOOD.format(name="same"))
    registry = Registry()
    registry.discover({})
    with pytest.raises(DuplicateNameError, match="'sf-one' and 'sf-two'"):
        registry.get("trainers", "same")
    assert "also provided by 'sf-two'" in info_of(registry, "sf-one").error


def test_two_distributions_may_name_their_entry_points_alike(install: Any) -> None:
    install("sf-one", GOOD.format(name="one"), entry_point="plugin")
    install("sf-two", GOOD.format(name="two"), entry_point="plugin")
    registry = Registry()
    registry.discover({})
    assert {"one", "two"} <= set(registry.names("trainers"))


def test_the_environment_limits_what_is_loaded(install: Any) -> None:
    install("sf-one", "raise AssertionError('loaded')")
    install("sf-two", GOOD.format(name="two"), entry_point="second")
    for allowed in ("second", " sf-two ,", "second,missing"):
        registry = Registry()
        registry.discover({"SHARDFIT_PLUGINS": allowed})
        assert registry.names("trainers") == ("two",)
    assert [i.name for i in registry.describe()] == ["builtin", "missing", "second"]
    assert "not installed" in info_of(registry, "missing").error


def test_the_environment_turns_on_a_trace_of_who_answered(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    install("sf-good", GOOD.format(name="good"))
    registry = Registry()
    registry.discover({"SHARDFIT_TRACE_PLUGINS": "1", "SHARDFIT_PLUGINS": "sf-good"})
    registry.open_source(pa.table({"a": [1]}), {})
    assert "shardfit_trainers: 'sf-good' answered good" in caplog.text
    assert "'arrow' (plugin 'builtin') claims an object of type pyarrow.lib.Table" in caplog.text


def test_a_plugin_can_be_registered_and_unregistered_by_a_program() -> None:
    registry = Registry()
    registry.register(Trainers(mine=lambda: None), "my plugin")
    assert registry.names("trainers") == ("mine",)
    registry.register(Trainers(other=print))
    assert [info.name for info in registry.describe()] == ["builtin", "Trainers", "my plugin"]
    assert registry.get("trainers", "other") is print
    registry.unregister("Trainers")
    registry.unregister("my plugin")
    assert registry.names("trainers") == ()
    with pytest.raises(UnknownNameError, match="'builtin'"):
        registry.unregister("my plugin")


def test_registering_a_name_that_is_taken_names_both_owners_and_keeps_nothing() -> None:
    registry = Registry()
    registry.register(Trainers(mine=print), "first")
    with pytest.raises(DuplicateNameError, match="'first' and 'second'"):
        registry.register(Trainers(mine=print, other=print), "second")
    with pytest.raises(DuplicateNameError, match="there is a plugin of that name"):
        registry.register(Trainers(), "first")
    assert registry.names("trainers") == ("mine",)
    assert [info.name for info in registry.describe()] == ["builtin", "first"]
    registry.register(Trainers(other=print), "second")


def test_an_unknown_name_says_what_exists_what_is_near_and_what_to_install() -> None:
    registry = Registry()
    with pytest.raises(UnknownNameError, match=r"Did you mean 'rows'\? There is: 'bytes', 'groups', 'rows'"):
        registry.get("sharding_strategies", "rowz")
    with pytest.raises(UnknownNameError, match="pip install shardfit-xgboost"):
        registry.trainer("xgboost")
    with pytest.raises(UnknownNameError, match="pip install shardfit-lightgbm"):
        registry.trainer("LightGBM")


def test_an_unknown_name_whose_plugin_is_broken_says_why(install: Any) -> None:
    install("sf-broken", "import does_not_exist", entry_point="xgboost")
    registry = Registry()
    registry.discover({"SHARDFIT_PLUGINS": "sf-broken"})
    with pytest.raises(UnknownNameError, match="installed and broken: ModuleNotFoundError"):
        registry.trainer("xgboost")


def test_a_provider_that_fails_or_makes_no_trainer_is_a_plugin_error() -> None:
    registry = Registry()

    def fails() -> None:
        raise ImportError("no module named torch")

    registry.register(Trainers(fails=fails, wrong=dict), "p")
    with pytest.raises(PluginError, match="no module named torch"):
        registry.trainer("fails")
    with pytest.raises(PluginError, match="it made a dict"):
        registry.trainer("wrong")


@given(order=st.permutations(["low", "high", "none", "fails"]))
def test_the_highest_claim_wins_in_any_order_of_registration(order: Sequence[str]) -> None:
    openers = {"low": Opener(1), "high": Opener(3), "none": Opener(None), "fails": Opener(9, fails=True)}
    registry = Registry()
    for name in order:
        registry.register(Sources(**{name: openers[name]}), f"plugin {name}")
    assert registry.open_source(Thing(), {}).schema().names == ["priority 3"]
    assert registry.open_source(Thing(), {}, "low").schema().names == ["priority 1"]
    assert registry.names("sources") == tuple(sorted([*Registry().names("sources"), *openers]))


@given(order=st.permutations(["a", "b"]))
def test_two_equal_claims_are_an_error_that_names_both(order: Sequence[str]) -> None:
    registry = Registry()
    for name in order:
        registry.register(Sources(**{name: Opener(2)}), f"plugin {name}")
    with pytest.raises(PluginError, match=r"'a' \(plugin 'plugin a'\).* and 'b' \(plugin 'plugin b'\)"):
        registry.open_source(Thing(), {})


def test_an_opener_that_raises_is_reported_without_secrets_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry()
    registry.register(Sources(bad=Opener(1, fails=True)), "p")
    with pytest.raises(InvalidArgumentError, match=r"'bad' .* raised RuntimeError"):
        registry.open_source(Thing(), {})
    assert "it is passed over" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_nobody_claims_lists_what_exists_and_hides_secrets() -> None:
    with pytest.raises(InvalidArgumentError, match=r"of type .*test_registry.Thing.*'csv', 'dataframe'"):
        Registry().open_source(Thing(), {})
    with pytest.raises(InvalidArgumentError, match="'local'") as caught:
        Registry().open_store("gopher://user:hunter2@host/x?token=hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_claim_that_is_no_claim_is_passed_over() -> None:
    class Yes(Opener):
        def claims(self, data: object) -> Any:
            return True

    registry = Registry()
    registry.register(Sources(yes=Yes(1)), "p")
    with pytest.raises(InvalidArgumentError, match="raised TypeError"):
        registry.open_source(Thing(), {})


def test_stores_are_opened_by_location(tmp_path: Path) -> None:
    assert Registry().open_store(str(tmp_path)) == LocalStore(tmp_path)
    with pytest.raises(InvalidArgumentError, match="'local'"):
        Registry().open_store("s3://bucket/stage")


def test_an_observer_that_raises_is_logged_by_name_and_the_others_still_hear(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[tuple[str, Event]] = []

    class Observer:
        def __init__(self, name: str, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        @hookimpl
        def shardfit_on_event(self, event: Event) -> None:
            heard.append((self.name, event))
            if self.fails:
                raise RuntimeError("token=hunter2")

    def broken(event: Event) -> None:
        raise RuntimeError

    registry = Registry()
    for name, fails in (("b", True), ("a", False), ("c", False)):
        registry.register(Observer(name, fails), name)
    event = RunStarted(trainer="x")
    registry.notify(event, [broken, lambda event: heard.append(("last", event))])
    assert heard == [(name, event) for name in ("a", "b", "c", "last")]
    assert "observer 'b' raised on RunStarted" in caplog.text
    assert "broken' raised on RunStarted" in caplog.text
    assert "hunter2" not in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_errors_of_opening_are_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        Registry().open_source(str(tmp_path / "none.parquet"), {}).fragments()
