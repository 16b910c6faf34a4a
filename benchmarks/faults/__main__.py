"""The campaign: many runs on a cluster of three hosts, each with one random fault, all of which must end the same.

    sudo python -m benchmarks.faults --runs 0:12 --out benchmarks/results/faults.json
    sudo python -m benchmarks.faults --seed 7013          # one of them again
    python -m benchmarks.faults --report benchmarks/results/faults.json

Each run ends in the model of an undisturbed run in one process, nothing half published; it strikes in the phase that
its event log shows. Slices append to the same file.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.faults.campaign import Campaign, Driver
from benchmarks.faults.cases import FIRST_SEED, TRAINERS, case_of
from benchmarks.faults.driver import write_table
from benchmarks.faults.report import good, lacks, report, table
from scripts.cluster import three_host_cluster, why_impossible


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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
