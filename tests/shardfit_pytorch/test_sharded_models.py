"""FSDP2 in the same loop: a checkpoint of two ranks goes on at four, and at one."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.shardfit.worker_processes import ProcessEngine
from tests.shardfit_pytorch import loops


def test_a_sharded_checkpoint_goes_on_at_other_numbers_of_ranks(tmp_path: Path, four_processes: ProcessEngine) -> None:
    result, alone = None, None
    for ranks in (2, 4, 1):
        result = loops.run(loops.sharded_model, ranks, tmp_path / "together", resume_from=result)
        alone = loops.run(loops.sharded_model, 1, tmp_path / "alone", resume_from=alone)
        found, expected = (
            torch.load(Path(each.get_model_dir()) / "model.pt", weights_only=True) for each in (result, alone)
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        location = result.get_checkpoint_location()
        assert location is not None
        assert len(list(Path(location).glob("part-*/tensors.bin"))) == ranks
