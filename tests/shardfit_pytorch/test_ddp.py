"""A rank's gradients weigh what its rows do, in each step that needs it, and nothing watches them in the others."""

from __future__ import annotations

import pickle

import torch
from torch import nn

from shardfit_pytorch.ddp import RowWeights


class Steps:
    """Rows of this rank and of all, changed as a loop takes batches."""

    def __init__(self) -> None:
        self.rows = (1, 2)

    def __call__(self) -> tuple[int, int]:
        return self.rows


def prepared(steps: Steps) -> nn.Module:
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    RowWeights(list(model.parameters()), steps, 2).weigh(model)
    return model


def gradient_of_a_step(model: nn.Module, steps: Steps, rows: tuple[int, int]) -> torch.Tensor:
    steps.rows = rows
    before = model.weight.grad.clone() if model.weight.grad is not None else torch.zeros(1, 2)
    model(torch.ones(3, 2)).mean().backward()
    assert isinstance(model.weight.grad, torch.Tensor)
    return model.weight.grad - before


def test_each_step_weighs_its_own_rows_even_where_gradients_are_added_up() -> None:
    steps = Steps()
    model = prepared(steps)
    for rows in [(5, 10), (6, 11), (4, 11), (5, 10), (3, 4)]:
        expected = torch.full((1, 2), rows[0] * 2 / rows[1])
        torch.testing.assert_close(gradient_of_a_step(model, steps, rows), expected)


def test_equal_steps_leave_gradients_unwatched() -> None:
    steps = Steps()
    model = prepared(steps)
    gradient_of_a_step(model, steps, (6, 11))
    assert model.weight._backward_hooks
    gradient_of_a_step(model, steps, (5, 10))
    assert not model.weight._backward_hooks


def test_rows_may_be_known_only_once_the_model_reads_its_batch() -> None:
    steps = Steps()
    model = prepared(steps)

    class Batch:
        """One of a `DataLoader` worker counts when the loop first reads a column of it."""

        def read(self) -> torch.Tensor:
            steps.rows = (6, 11)
            return torch.ones(3, 2)

    def forward(batch: Batch) -> torch.Tensor:
        return nn.Linear.forward(model, batch.read())  # type: ignore[arg-type]

    model.forward = forward
    model(Batch()).mean().backward()
    torch.testing.assert_close(model.weight.grad, torch.full((1, 2), 12 / 11))


def test_parameters_that_thaw_between_two_uneven_steps_are_weighed() -> None:
    steps = Steps()
    model = prepared(steps)
    gradient_of_a_step(model, steps, (6, 11))
    model.bias.requires_grad_(True)
    model.weight.requires_grad_(False)
    gradient_of_a_step(model, steps, (4, 11))
    torch.testing.assert_close(model.bias.grad, torch.tensor([8 / 11]))
    model.weight.requires_grad_(True)
    torch.testing.assert_close(gradient_of_a_step(model, steps, (5, 11)), torch.full((1, 2), 10 / 11))


def test_a_part_of_two_models_is_weighed_once() -> None:
    steps = Steps()
    shared = prepared(steps)
    RowWeights(list(shared.parameters()), steps, 2).weigh(shared)
    for rows in [(6, 11), (4, 11), (5, 10), (5, 11)]:
        expected = torch.full((1, 2), rows[0] * 2 / rows[1])
        torch.testing.assert_close(gradient_of_a_step(shared, steps, rows), expected)


def test_a_model_that_is_saved_whole_leaves_the_run_behind() -> None:
    steps = Steps()
    model = pickle.loads(pickle.dumps(prepared(steps)))
    torch.testing.assert_close(gradient_of_a_step(model, steps, (6, 11)), torch.ones(1, 2))
