"""The campaign: many runs on a cluster of three hosts, each with one random fault, all of which must end the same.

    sudo python -m benchmarks.faults --runs 0:12 --out benchmarks/results/faults.json
    sudo python -m benchmarks.faults --seed 7013          # one of them again
    python -m benchmarks.faults --report benchmarks/results/faults.json

Each run ends in the model of an undisturbed run in one process, nothing half published; it strikes in the phase that
its event log shows. Slices append to the same file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.fault_cases import FIRST_SEED, TRAINERS, FaultCase, case_of
from benchmarks.fault_driver import write_table
from benchmarks.fault_loop import rows_of_epochs
from benchmarks.fault_models import same_model
from benchmarks.fault_report import good, lacks, report, table
from scripts import faults
from scripts.cluster import HostCluster, three_host_cluster, why_impossible
from shardfit.stores.local import LocalStore

# None takes as long by far; one that does hangs, which is a result.
_HANG_SECONDS = 240.0


class Driver:
    """A driver on the first host, which makes runs one after another; a new one when it was killed."""

    def __init__(self, folder: Path, cluster: HostCluster) -> None:
        command = ["ip", "netns", "exec", cluster.namespace(0), sys.executable, "-m", "benchmarks.fault_driver"]
        with (folder / "driver.log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, str(folder), json.dumps(asdict(cluster))],
                env={**os.environ, **cluster.environ, "PYTHONWARNINGS": "ignore"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, **command: Any) -> dict[str, Any]:
        """Return the answer to a command; an error if none comes in time."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + _HANG_SECONDS
        while time.monotonic() < deadline:
            if select.select([self.process.stdout], [], [], 1.0)[0]:
                line = self.process.stdout.readline()
                if not line:
                    return {"error": "the driver ended"}
                if line.startswith("{"):
                    found: dict[str, Any] = json.loads(line)
                    return found
        return {"error": f"hangs: no answer within {_HANG_SECONDS:g} s"}

    def end(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            # A command that the driver has not read is nobody's any more.
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


class Campaign:
    """Runs cases on one cluster.

    Args:
        folder: Data, stage, logs.
        cluster: Up.
    """

    def __init__(self, folder: Path, cluster: HostCluster) -> None:
        self.folder, self.cluster = folder, cluster
        self.driver = Driver(folder, cluster)
        self.expected: dict[str, str] = {}
        self.rows = rows_of_epochs(pq.read_table(folder / "rows.parquet"))
        self.store = LocalStore(folder / "stage")
        self.nodes: list[subprocess.Popen[bytes]] = []

    def end(self) -> None:
        """End the driver and the nodes that were started anew."""
        self.driver.end()
        for node in self.nodes:
            node.kill()
            node.wait()

    def run(self, case: FaultCase) -> dict[str, Any]:
        """Return the result of one case."""
        if case.trainer not in self.expected:
            self.expected[case.trainer] = self.driver.ask(do="undisturbed", trainer=case.trainer)["model"]
        begun = time.time()
        found = self.driver.ask(do="perform", **asdict(case))
        if case.fault == "kill driver" and "struck" in found:
            self.driver.end()
            self.driver = Driver(self.folder, self.cluster)
            found = {**found, **self.driver.ask(do="resume", trainer=case.trainer), "wall": time.time() - begun}
            found["worlds"] = [*found["worlds"]]
        if found.get("error"):
            self.driver.end()
            self.driver = Driver(self.folder, self.cluster)
        self._repair(found.get("down", []), case)
        return {**asdict(case), **self._judged(case, found)}

    def _judged(self, case: FaultCase, found: dict[str, Any]) -> dict[str, Any]:
        struck, noticed, again = (found.get(name, []) for name in ("struck", "noticed", "again"))
        halves = [path for path in (self.folder / "stage" / ".staging").glob("*") if any(path.iterdir())]
        log = found.get("log", [])
        return {
            "error": found.get("error", ""),
            "same_model": same_model(found.get("model", ""), self.expected[case.trainer], self.rows),
            "struck_in_phase": bool(struck) and struck_in(case, log),
            "took_effect": case.fault == "kill driver" or bool(noticed),
            "half_published": bool(found.get("published_before")) or bool(self._broken()),
            "staging_left": len(halves),
            "worlds": found.get("worlds", []),
            "causes": found.get("causes", []),
            "notice_s": [round(late - early, 2) for early, late in zip(struck, noticed, strict=False)],
            "again_s": [round(late - early, 2) for early, late in zip(struck, again, strict=False)],
            "resume_s": found.get("resume_s"),
            "wall_s": round(found.get("wall", 0.0), 1),
        }

    def _broken(self) -> list[str]:
        broken = []
        for artifact in self.store.list("model/"):
            with tempfile.TemporaryDirectory() as target:
                try:
                    self.store.get(artifact, Path(target) / "model")
                except OSError as error:
                    broken.append(f"{artifact}: {error}")
        return broken

    def _repair(self, down: list[int], case: FaultCase) -> None:
        if case.fault in ("cut host", "freeze host"):
            for host in down:
                # Its node would find its way back only after minutes, if at all, and so is started anew.
                self.cluster.lose(host)
                if case.fault == "cut host":
                    faults.heal(self.cluster, host)
        self.nodes += [faults.restore(self.cluster, host) for host in down]


def struck_in(case: FaultCase, log: list[str]) -> bool:
    """Return whether the event log shows that the fault struck in its phase."""
    place = next(number for number, line in enumerate(log) if line.startswith("STRIKE:"))
    before = log[place - 1] if place else ""
    expected = {
        "profile": "Progress:profile",
        "ingest": "Progress:ingest",
        "mid-round": f"MetricsReported:{case.round}",
        "collect": "MetricsReported:",
        "checkpoint": f"WRITING:run/checkpoint-1-{case.round}",
        "publish": "WRITING:model/",
    }
    return before.startswith(expected[case.phase])


def campaign(seeds: list[int], out: Path | None) -> list[dict[str, Any]]:
    """Run the cases of some seeds; each is appended to `out` as soon as it has ended."""
    results: list[dict[str, Any]] = []
    # One CPU each, so that two hosts have no room for three workers.
    with three_host_cluster(cpus=1) as cluster:
        folder = Path(cluster.folder)
        write_table(folder / "rows.parquet")
        write_table(folder / "held_out.parquet", 8_000)
        runs = Campaign(folder, cluster)
        try:
            for seed in seeds:
                case = case_of(seed)
                print(f"seed {seed}: {case.trainer}, {case.phase}, {case.fault}, worker {case.rank}", flush=True)
                results.append(runs.run(case))
                shown = {name: results[-1][name] for name in ("worlds", "causes", "notice_s", "again_s", "wall_s")}
                verdict = "good" if good(results[-1]) else "BAD"
                print(f"  {verdict} {json.dumps(shown)} {results[-1]['error']}", flush=True)
                if out is not None:
                    known = json.loads(out.read_text()) if out.exists() else []
                    kept = [entry for entry in known if entry["seed"] != seed]
                    out.write_text(json.dumps([*kept, results[-1]], indent=1) + "\n")
            if out is not None and seeds:
                _note_restart(runs, out)
        finally:
            runs.end()
            log = folder / "driver.log"
            print(log.read_text()[-3000:] if not all(map(good, results)) else "", file=sys.stderr)
    return results


def _note_restart(runs: Campaign, out: Path) -> None:
    known = json.loads(out.read_text())
    trainer = TRAINERS[sum("restart_s" in entry for entry in known) % len(TRAINERS)]
    runs.driver.end()
    begun = time.time()
    runs.driver = Driver(runs.folder, runs.cluster)
    found = runs.driver.ask(do="restart", trainer=trainer, round=0)
    seconds = time.time() - begun - found["wall"] + found["restart_s"]
    entry = {"seed": -len(known), "restarted": trainer, "restart_s": round(seconds, 2)}
    out.write_text(json.dumps([*known, entry], indent=1) + "\n")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="0:42", help="first and one past the last run, a:b")
    parser.add_argument("--seed", type=int, help="one run, by its seed")
    parser.add_argument("--out", type=Path, help="JSON file that results are added to")
    parser.add_argument("--report", type=Path, help="only show what such a file says")
    given = parser.parse_args()
    if given.report:
        results = json.loads(given.report.read_text())
        print(report(results), *lacks(results), table(results), sep="\n")
        return 1 if lacks(results) else 0
    if (reason := why_impossible()) is not None:
        sys.exit(f"A cluster of three hosts is not possible here; {reason}.")
    # Ended by `timeout`, too, it must take the cluster with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"ended by signal {number}"))
    first, last = map(int, given.runs.split(":"))
    seeds = [given.seed] if given.seed is not None else list(range(FIRST_SEED + first, FIRST_SEED + last))
    results = campaign(seeds, given.out)
    print(report(results))
    return 0 if all(map(good, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
