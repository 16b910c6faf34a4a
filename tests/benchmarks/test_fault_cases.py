"""The campaign's faults are spread over phases and trainers, and a seed is a case."""

from __future__ import annotations

from collections import Counter

from benchmarks.fault_cases import FIRST_SEED, PHASES, TRAINERS, case_of

CASES = [case_of(seed) for seed in range(FIRST_SEED, FIRST_SEED + 42)]


def test_every_phase_meets_every_fault() -> None:
    for phase in PHASES[:-1]:
        found = Counter(case.fault for case in CASES if case.phase == phase)
        assert found == {"kill worker": 2, "kill host": 2, "freeze worker": 1, "cut host": 1, "freeze host": 1}
    assert {case.fault for case in CASES if case.phase == "publish"} == {"kill driver"}


def test_every_phase_and_every_fault_meets_both_trainers() -> None:
    for name in ("phase", "fault"):
        for value in {getattr(case, name) for case in CASES}:
            assert {case.trainer for case in CASES if getattr(case, name) == value} == set(TRAINERS)


def test_hosts_come_back_in_some_runs_and_the_driver_keeps_its_own() -> None:
    assert sum(case.grows for case in CASES) >= 3
    assert all(case.rank for case in CASES if "host" in case.fault)
    assert case_of(FIRST_SEED + 9) == case_of(FIRST_SEED + 9)
