"""What the results of the campaign say, for people, and what they lack."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.faults.cases import PHASES, TRAINERS

LEAST_RUNS, LEAST_OF_A_PHASE = 40, 5


def good(result: dict[str, Any]) -> bool:
    """Return whether a run ended as it must, and its fault was felt: a run that nothing disturbed proves nothing."""
    return ended(result) and counts(result)


def ended(result: dict[str, Any]) -> bool:
    """Return whether a run ended as it must, whatever happened to it."""
    return bool(result["same_model"] and not result["half_published"] and not result["error"])


def counts(result: dict[str, Any]) -> bool:
    """Return whether the fault of a run struck in its phase and was felt."""
    return bool(result["struck_in_phase"] and result["took_effect"])


def lacks(results: list[dict[str, Any]]) -> list[str]:
    """Return what is missing in results to be the campaign: runs, phases that were struck and felt, worlds.

    Args:
        results: As `--out` keeps them.
    """
    runs = [entry for entry in results if "trainer" in entry]
    bad = [entry for entry in runs if not ended(entry)]
    missing = [f"{len(runs)} runs instead of {LEAST_RUNS}"] if len(runs) < LEAST_RUNS else []
    for phase in PHASES:
        felt = sum(entry["phase"] == phase and counts(entry) for entry in runs)
        if felt < LEAST_OF_A_PHASE:
            missing.append(f"{felt} felt in the phase {phase} instead of {LEAST_OF_A_PHASE}")
    if not any(entry["worlds"] == [3, 2, 3] for entry in runs):
        missing.append("no run with the worlds 3 -> 2 -> 3")
    return missing + [f"seed {entry['seed']} ended otherwise than it must" for entry in bad]


def report(results: list[dict[str, Any]]) -> str:
    """Return what the results say, for people."""
    runs = sorted((entry for entry in results if "trainer" in entry), key=lambda entry: entry["seed"])
    lines = [f"{len(runs)} runs, {sum(map(good, runs))} good; seeds {runs[0]['seed']} to {runs[-1]['seed']}"]
    lines += [f"  not good: seed {entry['seed']}" for entry in runs if not good(entry)]
    unfelt = [str(entry["seed"]) for entry in runs if not counts(entry)]
    lines.append(f"faults that nothing felt, which are not counted below: {', '.join(unfelt) or 'none'}")
    for key, values in (("phase", PHASES), ("trainer", TRAINERS)):
        felt = {value: sum(entry[key] == value and counts(entry) for entry in runs) for value in values}
        lines.append(f"{key}: " + ", ".join(f"{value} {count}" for value, count in felt.items()))
    grown = sum(entry["worlds"] == [3, 2, 3] for entry in runs)
    lines.append(f"worlds 3 -> 2 -> 3: {grown}; longest run {max(entry['wall_s'] for entry in runs):.1f} s")
    for fault in sorted({entry["fault"] for entry in runs}):
        mine = [entry for entry in runs if entry["fault"] == fault]
        lines.append(f"{fault}: {len(mine)} runs; {_times(mine)}")
        by_trainer = {name: [entry for entry in mine if entry["trainer"] == name] for name in TRAINERS}
        lines += [f"  {name}: {len(some)} runs; {_times(some)}" for name, some in by_trainer.items() if some]
    for name in TRAINERS:
        restarts = [entry["restart_s"] for entry in results if entry.get("restarted") == name]
        resumed = [entry["resume_s"] for entry in runs if entry["trainer"] == name and entry.get("resume_s")]
        lines.append(f"a new driver of {name}, until its first round is done: {_spread(restarts)}")
        lines.append(f"  one that resumes a run of a driver killed while it published, to the end: {_spread(resumed)}")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.1f} s (median of {len(values)}, most {max(values):.1f})"


def table(results: list[dict[str, Any]]) -> str:
    """Return the times of the faults that were felt as a table for the docs."""
    runs = [entry for entry in results if "trainer" in entry and counts(entry)]
    lines = [
        "| fault | runs | noticed after | training again after: boosters | PyTorch |",
        "|---|---|---|---|---|",
    ]
    for fault in sorted({entry["fault"] for entry in runs}):
        mine = [entry for entry in runs if entry["fault"] == fault]
        networks = [entry for entry in mine if entry["trainer"] == "pytorch"]
        boosters = [entry for entry in mine if entry["trainer"] != "pytorch"]
        cells = [_short(mine, "notice_s"), _short(boosters, "again_s"), _short(networks, "again_s")]
        lines.append(f"| {fault} | {len(mine)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(runs: list[dict[str, Any]], name: str) -> str:
    values = [entry[name][0] for entry in runs if entry[name]]
    return f"{statistics.median(values):.1f} s, {max(values):.1f} s" if values else "-"


def _times(runs: list[dict[str, Any]]) -> str:
    noticed = [entry["notice_s"][0] for entry in runs if entry["notice_s"]]
    again = [entry["again_s"][0] for entry in runs if entry["again_s"]]
    return f"noticed after {_spread(noticed)}; training again after {_spread(again)}"
