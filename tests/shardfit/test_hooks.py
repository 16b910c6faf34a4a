"""Every hook does what docs/hooks.md says; and the document, the specifications and these tests do not drift apart."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner

from shardfit import hookspecs
from shardfit.artifacts import ArtifactStore
from shardfit.cli import app, plugin_commands
from shardfit.connector import DataConnector
from shardfit.events import Event, MetricsReported
from shardfit.hookspecs import hookimpl
from shardfit.registry import KINDS, Registry
from shardfit.scaling import ClusterResources, Keep, Node, Resize, ScalingRequest, WorkerLayout, WorkerSlot
from shardfit.shard_plan import ShardingConstraints, ShardPlan, World
from shardfit.source import Claim, DataSource, Fragment
from shardfit.sources.arrow import ArrowSource
from shardfit.stores.local import LocalStore
from shardfit.trainer import Trainer

DOCUMENT = Path(__file__).parents[2] / "docs" / "hooks.md"
HOOKS: dict[str, Callable[..., Any]] = {
    name: function
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if name.startswith("shardfit_") and hasattr(function, "shardfit_spec")
}


def registered(plugin: object) -> Registry:
    registry = Registry()
    registry.register(plugin, "stranger")
    return registry


def documented_headings() -> list[str]:
    return re.findall(r"^### `(shardfit_.*)`$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_every_hook_is_documented_with_its_signature_and_no_other() -> None:
    signatures = [f"{name}({', '.join(inspect.signature(function).parameters)})" for name, function in HOOKS.items()]
    assert sorted(documented_headings()) == sorted(signatures)


def test_every_documented_hook_has_prose_on_when_it_is_called_and_an_example() -> None:
    sections = re.split(r"^### ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for section in sections:
        name = section[1:].partition("(")[0]
        prose, *examples = re.split(r"```python\n(.*?)```", section, flags=re.DOTALL)
        assert "called" in prose.lower(), name
        assert any("@hookimpl" in code and f"def {name}(" in code for code in examples), name
        for code in examples[::2]:
            compile(code, f"{DOCUMENT}:{name}", "exec")


def test_every_hook_is_tested_here() -> None:
    tests = [function for name, function in globals().items() if name.startswith("test_hook_")]
    source = "\n".join(inspect.getsource(function) for function in tests)
    assert [name for name in HOOKS if f"def {name}(" not in source] == []


def test_every_hook_that_collects_belongs_to_a_kind() -> None:
    assert sorted(HOOKS) == sorted([*(f"shardfit_{kind}" for kind in KINDS), "shardfit_on_event"])


def test_hook_sources_open_what_they_claim() -> None:
    class Opener:
        def claims(self, data: object) -> Claim | None:
            return Claim(10) if isinstance(data, range) else None

        def open(self, data: object, options: Mapping[str, Any]) -> DataSource:
            assert isinstance(data, range)
            return ArrowSource(pa.table({options["name"]: list(data)}))

    class Plugin:
        @hookimpl
        def shardfit_sources(self) -> Mapping[str, Any]:
            return {"range": Opener()}

    connector = DataConnector(range(3), options={"name": "n"})
    assert connector.to_arrow(registry=registered(Plugin())).to_pydict() == {"n": [0, 1, 2]}


def test_hook_sharding_strategies_divide_fragments() -> None:
    def all_to_one(
        fragments: Sequence[Fragment], world: World, seed: int, constraints: ShardingConstraints
    ) -> ShardPlan:
        rows = np.array([fragment.rows for fragment in fragments])
        count = len(rows)
        return ShardPlan("one", rows, np.array([0, count]), np.arange(count), np.zeros(count, np.int64), rows)

    class Plugin:
        @hookimpl
        def shardfit_sharding_strategies(self) -> Mapping[str, Any]:
            return {"one": all_to_one}

    strategy = registered(Plugin()).get("sharding_strategies", "one")
    plan = strategy([Fragment("a", 0, 3), Fragment("b", 0, 4)], World(5), 0, ShardingConstraints())
    assert (plan.workers, plan.rows) == (1, 7)


def test_hook_trainers_are_made_when_they_are_asked_for() -> None:
    made = []

    class Small(Trainer):
        def configure(self, params: Mapping[str, Any]) -> Any:
            return dict(params)

        def run_worker(self, *arguments: Any) -> Any:
            return None

        def collect(self, values: Sequence[Any]) -> Any:
            return list(values)

        def save(self, model: Any) -> Mapping[str, bytes]:
            return {}

        def load(self, files: Mapping[str, bytes]) -> Any:
            return None

        def predict(self, model: Any, batch: pa.RecordBatch) -> pa.Array:
            return pa.nulls(batch.num_rows)

    def provider() -> Trainer:
        made.append(Small())
        return made[-1]

    class Plugin:
        @hookimpl
        def shardfit_trainers(self) -> Mapping[str, Any]:
            return {"small": provider}

    registry = registered(Plugin())
    assert made == []
    assert registry.trainer("small") is made[0]


def test_hook_scaling_policies_decide_and_answer_losses() -> None:
    class Two:
        def decide(self, cluster: ClusterResources, request: ScalingRequest) -> WorkerLayout:
            slots = tuple(WorkerSlot(rank, cluster.nodes[0].name, 1) for rank in range(2))
            return WorkerLayout("ray", slots, ("always two",))

        def after_loss(self, cluster: ClusterResources, request: ScalingRequest, lost: WorkerLayout) -> Keep | Resize:
            return Resize(lost.first(1))

    class Plugin:
        @hookimpl
        def shardfit_scaling_policies(self) -> Mapping[str, Any]:
            return {"two": Two()}

    policy = registered(Plugin()).get("scaling_policies", "two")
    cluster = ClusterResources((Node("n", "127.0.0.1", 4.0),), "ray")
    layout = policy.decide(cluster, ScalingRequest())
    after = policy.after_loss(cluster, ScalingRequest(), layout)
    assert layout.workers == 2
    assert isinstance(after, Resize)
    assert after.layout.workers == 1


def test_hook_artifact_stores_open_locations(tmp_path: Path) -> None:
    class Opener:
        def claims(self, location: str) -> Claim | None:
            return Claim(10) if location.startswith("mine:") else None

        def open(self, location: str, options: Mapping[str, Any]) -> ArtifactStore:
            return LocalStore(tmp_path / location.removeprefix("mine:"))

    class Plugin:
        @hookimpl
        def shardfit_artifact_stores(self) -> Mapping[str, Any]:
            return {"mine": Opener()}

    store = registered(Plugin()).open_store("mine:here")
    store.put("a", {"f": b"1"})
    assert LocalStore(tmp_path / "here").read("a", "f") == b"1"


def test_hook_exporters_turn_connectors_into_something_else() -> None:
    class Plugin:
        @hookimpl
        def shardfit_exporters(self) -> Mapping[str, Any]:
            return {"lists": lambda connector: connector.to_arrow().to_pydict()}

    export = registered(Plugin()).get("exporters", "lists")
    assert export(DataConnector.from_arrow(pa.table({"a": [1, 2]}))) == {"a": [1, 2]}


@pytest.mark.parametrize("takes_event", [True, False])
def test_hook_observers_hear_every_event_and_need_not_take_it(takes_event: bool) -> None:
    heard: list[Event | None] = []

    class Takes:
        @hookimpl
        def shardfit_on_event(self, event: Event) -> None:
            heard.append(event)

    class TakesNot:
        @hookimpl
        def shardfit_on_event(self) -> None:
            heard.append(None)

    event = MetricsReported(round=0, metrics={"a": 1.0})
    registered(Takes() if takes_event else TakesNot()).notify(event)
    assert heard == [event if takes_event else None]


def test_hook_commands_are_made_when_they_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make_commands() -> typer.Typer:
        made.append(True)
        app = typer.Typer()

        @app.command()
        def say(word: str) -> None:
            typer.echo(f"said {word}")

        return app

    class Plugin:
        @hookimpl
        def shardfit_commands(self) -> Mapping[str, Any]:
            return {"say": make_commands, "plan": make_commands}

    registry = registered(Plugin())
    monkeypatch.setattr(plugin_commands, "default_registry", lambda: registry)
    assert made == []
    said = CliRunner().invoke(app, ["say", "hello"])
    assert said.stdout == "said hello\n"
    assert len(made) == 1
    assert " say " in CliRunner().invoke(app, ["--help"]).stdout
    # The core's own commands are not replaced.
    assert "JOB.toml" in CliRunner().invoke(app, ["plan", "--help"]).stdout
    assert CliRunner().invoke(app, ["fly"]).exit_code == 2
    assert "pip install shardfit-stages" in CliRunner().invoke(app, ["stage", "list"], terminal_width=200).output
