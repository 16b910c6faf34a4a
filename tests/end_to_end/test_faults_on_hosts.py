"""P5 on three hosts with addresses of their own: a host that is cut off, stopped or lost costs an attempt, no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.campaign import Campaign
from benchmarks.faults.cases import FaultCase
from benchmarks.faults.driver import write_table
from benchmarks.faults.report import good
from scripts.cluster import three_host_cluster, why_impossible

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    if (reason := why_impossible()) is not None:
        pytest.skip(f"no cluster of three hosts here; {reason}")
    # One CPU each, so that two hosts have no room for three workers.
    with three_host_cluster(cpus=1) as cluster:
        folder = Path(cluster.folder)
        write_table(folder / "rows.parquet")
        write_table(folder / "held_out.parquet", 8_000)
        runs = Campaign(folder, cluster)
        try:
            yield runs
        finally:
            runs.end()


def test_a_host_that_is_lost_and_comes_back_is_used_again(campaign: Campaign) -> None:
    found = campaign.run(FaultCase(1, "xgboost", "mid-round", "kill host", rank=2, round=8, grows=True))
    assert good(found), found
    assert found["worlds"] == [3, 2, 3]
    assert found["causes"] == ["node gone", "killed"]


# Workers that are stopped, and drivers that are killed, need no hosts: see the tests of the engine and of resuming.
def test_a_host_that_is_cut_off_is_given_up(campaign: Campaign) -> None:
    found = campaign.run(FaultCase(2, "lightgbm", "mid-round", "cut host", rank=2, round=8))
    assert good(found), found
    assert found["worlds"] == [3, 2]
    assert found["causes"][0] in ("frozen", "node gone")
