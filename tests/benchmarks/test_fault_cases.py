"""The campaign's faults are spread over phases and trainers, and a seed is a case."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from benchmarks.faults.cases import FIRST_SEED, PHASES, TRAINERS, case_of
from benchmarks.faults.models import same_model
from benchmarks.faults.report import lacks

CASES = [case_of(seed) for seed in range(FIRST_SEED, FIRST_SEED + 42)]


def test_every_phase_meets_every_fault() -> None:
    for phase in PHASES[:-1]:
        found = Counter(case.fault for case in CASES if case.phase == phase)
        assert found == {"kill worker": 2, "kill host": 2, "freeze worker": 1, "cut host": 1, "freeze host": 1}
    assert {case.fault for case in CASES if case.phase == "publish"} == {"kill driver"}


def test_every_phase_and_every_fault_meets_every_trainer() -> None:
    for name in ("phase", "fault"):
        for value in {getattr(case, name) for case in CASES}:
            # A loop of PyTorch's has no profile.
            expected = set(TRAINERS[:2]) if value == "profile" else set(TRAINERS)
            assert {case.trainer for case in CASES if getattr(case, name) == value} == expected


def test_hosts_come_back_in_some_runs_and_the_driver_keeps_its_own() -> None:
    assert Counter(case.trainer for case in CASES if case.grows) == {"lightgbm": 2, "pytorch": 2}
    assert all(case.rank for case in CASES if "host" in case.fault)
    assert case_of(FIRST_SEED + 9) == case_of(FIRST_SEED + 9)


def network(**changes: Any) -> str:
    found = {"weights": {"0.weight": [[1.0, 2.0]]}, "loss": 0.5, "steps": 60, "rows": [[3, 7, 8]], "covered": True}
    return json.dumps({**found, **changes})


@pytest.mark.parametrize(
    ("found", "same"),
    [
        (network(), True),
        (network(loss=0.500001, weights={"0.weight": [[1.00001, 2.0]]}), True),
        (network(loss=0.501), False),
        (network(weights={"0.weight": [[1.01, 2.0]]}), False),
        (network(weights={}), False),
        (network(rows=[[3, 7, 9]]), False),
        (network(steps=59), False),
        (network(covered=False), False),
        ("", False),
    ],
)
def test_networks_are_the_same_within_float_error_and_with_each_row_once(found: str, same: bool) -> None:
    assert same_model(found, network(), [[3, 7, 8]]) is same


def test_boosters_are_the_same_byte_for_byte() -> None:
    assert same_model("00ff", "00ff", [])
    assert not same_model("00fe", "00ff", [])
    assert not same_model("", "", [])


def result(seed: int, phase: str, worlds: list[int], **changes: Any) -> dict[str, Any]:
    case = {"seed": seed, "trainer": "pytorch", "phase": phase, "fault": "kill worker", "worlds": worlds}
    good = {"same_model": True, "half_published": False, "error": "", "struck_in_phase": True, "took_effect": True}
    return {**case, **good, "notice_s": [1.0], "again_s": [5.0], "wall_s": 9.0, **changes}


def test_what_a_campaign_lacks_is_said() -> None:
    whole = [result(7 * turn + place, phase, [3, 2, 3]) for turn in range(7) for place, phase in enumerate(PHASES)]
    assert lacks(whole) == []
    unfelt = [{**entry, "took_effect": entry["phase"] != "collect"} for entry in whole]
    assert lacks(unfelt[:39]) == ["39 runs instead of 40", "0 felt in the phase collect instead of 5"]
    assert lacks([{**entry, "worlds": [3, 3]} for entry in whole]) == ["no run with the worlds 3 -> 2 -> 3"]
    assert lacks([{**whole[0], "same_model": False}, *whole[1:]]) == ["seed 0 ended otherwise than it must"]
