"""Runs of the campaign: a driver on the first host makes them one after another, and what became of each is judged."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.faults.cases import FaultCase
from benchmarks.faults.loop import rows_of_epochs
from benchmarks.faults.models import same_model
from scripts import faults
from scripts.cluster import HostCluster
from shardfit.stores.local import LocalStore

# None takes as long by far; one that does hangs, which is a result.
_HANG_SECONDS = 240.0


class Driver:
    """A driver on the first host, which makes runs one after another; a new one when it was killed."""

    def __init__(self, folder: Path, cluster: HostCluster) -> None:
        command = ["ip", "netns", "exec", cluster.namespace(0), sys.executable, "-m", "benchmarks.faults.driver"]
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
