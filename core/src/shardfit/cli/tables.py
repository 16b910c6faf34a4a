"""What the command line shows to people. Each function takes what `--json` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shardfit.run_record import metrics_at

_MOST_ROWS = 20


def show_files(console: Console, content: Mapping[str, Any]) -> None:
    """Show which files were written."""
    _bullets(console, content["files"])


def show_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """Show what a run would do."""
    datasets: Mapping[str, Any] = plan["datasets"]
    sparse = sum(cast.get("features", 0) for cast in plan["casts"])
    console.print(f"[bold]Data[/bold] ({plan['trainer']}, {sparse or len(plan['features'])} features)")
    show_table(
        console,
        ["dataset", "source", "fragments", "rows", "decoded", "strategy"],
        [
            (name, d["source"], f"{d['fragments']:,}", f"{d['rows']:,}", size(d["bytes"]), d["strategy"])
            for name, d in datasets.items()
        ],
    )
    console.print(f"[bold]Workers[/bold] (engine {plan['engine']})")
    _bullets(console, plan["reasons"])
    show_table(
        console,
        ["worker", "node", "CPUs", "GPUs", "memory", *(f"{name} rows (slices)" for name in datasets)],
        [
            (w["rank"], w["node"], w["cpus"], w["gpus"], size(w["memory"]), *_reads(datasets.values(), w["rank"]))
            for w in plan["workers"]
        ],
    )
    console.print(f"[bold]Passes over the data[/bold]: {plan['passes']}")
    show_memory(console, plan["memory_per_worker"])
    _warnings(console, plan["warnings"])


def show_result(console: Console, result: Mapping[str, Any]) -> None:
    """Show what training gave."""
    console.print(f"[bold]Run[/bold] {result['run_id']}, {result['rounds']} rounds, attempt {result['attempts']}")
    best = "last round" if result["best_round"] is None else f"round {result['best_round']}"
    show_table(console, ["metric", best], [(name, f"{value:.6g}") for name, value in result["metrics"].items()])
    for name, part in result["coverage"].items():
        exact = "each row once" if part["exact"] else "[red]not each row once[/red]"
        console.print(f"{escape(name)}: {part['planned']:,} rows planned, {part['used']:,} used, {exact}")
    planned = result["memory"]["planned"]
    peaks = [
        f"{phase} {size(peak)} ({size(planned.get(phase, 0))})" for phase, peak in result["memory"]["measured"].items()
    ]
    console.print(f"Peak memory of a worker, planned in brackets: {', '.join(peaks)}")
    _warnings(console, result["warnings"])
    _plain(console, f"Model: {result['model_address']}")


def show_plugins(console: Console, content: Mapping[str, Any]) -> None:
    """Show every plugin."""
    rows = []
    for plugin in content["plugins"]:
        provides = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin["provides"].items())
        state = f"broken: {plugin['error']}" if plugin["error"] else "ok"
        rows.append((plugin["name"], plugin["distribution"], plugin["version"], provides, state))
    show_table(console, ["plugin", "distribution", "version", "provides", "state"], rows, most=len(rows))


def show_cluster(console: Console, cluster: Mapping[str, Any]) -> None:
    """Show the nodes that a run would use."""
    console.print(f"Engine: {cluster['engine']}")
    show_table(
        console,
        ["node", "address", "CPUs", "GPUs", "memory"],
        [(n["name"], n["address"], f"{n['cpus']:g}", f"{n['gpus']:g}", size(n["memory"])) for n in cluster["nodes"]],
        most=len(cluster["nodes"]),
    )


def show_runs(console: Console, content: Mapping[str, Any]) -> None:
    """Show the records of a stage."""
    _plain(console, f"Stage: {content['stage']}")
    if not content["runs"]:
        console.print("No run has been recorded here.")
        return
    rows = []
    for run in content["runs"]:
        values = metrics_at(run.get("best_round"), run["metrics"])
        metrics = ", ".join(f"{name} {float(value):.6g}" for name, value in values.items())
        seconds = sum(run["phases"].values())
        rows.append((run["run_id"], run["trainer"], run["status"], f"{seconds:.1f} s", run["error"] or metrics))
    show_table(console, ["run", "trainer", "status", "time", "metrics or error"], rows, most=len(rows))


def size(count: float) -> str:
    """Return a number of bytes for people; `unknown` for 0."""
    if not count:
        return "unknown"
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _reads(datasets: Iterable[Mapping[str, Any]], rank: int) -> list[str]:
    # A dataset smaller than the number of workers has no entry for the last ones.
    return [
        f"{d['worker_rows'][rank]:,} ({d['worker_slices'][rank]:,})" if rank < len(d["worker_rows"]) else "0"
        for d in datasets
    ]


def show_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], most: int = _MOST_ROWS) -> None:
    """Show a table; of more than `most` rows the first."""
    if not rows:
        return
    table = Table(*(), box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:most]:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)
    if len(rows) > most:
        console.print(f"... and {len(rows) - most:,} more; --json has them all")


def show_memory(console: Console, memory: Mapping[str, Any]) -> None:
    """Show what the memory of a worker goes to."""
    has = f", which has {size(memory['available'])}" if memory["available"] else ""
    disk = f"; {size(memory['disk'])} on its disk" if memory["disk"] else ""
    console.print(f"[bold]Estimated peak memory of a worker[/bold]: {size(memory['peak'])}{has}{disk}")
    phases = list(memory["phases"])
    show_table(
        console,
        ["part", *phases, "what it is"],
        [
            (part["part"], *(size(part["bytes"]) if phase in part["phases"] else "" for phase in phases), part["why"])
            for part in memory["parts"]
        ]
        + [("in all", *(size(memory["phases"][phase]) for phase in phases), "")],
    )


def _bullets(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        _plain(console, f"- {line}")


def _warnings(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(f"[yellow]warning[/yellow]: {escape(warning)}", soft_wrap=True)


def _plain(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
