"""Find weights and optimizer state that are not finite, on their own device and a piece at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from deepspeed import DeepSpeedEngine
from torch import Tensor

PIECE = 2**24
"""Elements that are checked at a time: ``isfinite`` makes copies of its input."""


@torch.no_grad()
def non_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that contain NaN or infinity. Wait for the device only once, at the end."""
    flags = [
        (name, torch.stack([piece.isfinite().all() for piece in tensor.flatten().split(PIECE)]).all())
        for name, tensor in tensors
    ]
    return [name for name, is_finite in flags if not bool(is_finite)]


def training_state(engine: DeepSpeedEngine) -> Iterator[tuple[str, Tensor]]:
    """Yield this rank's share of weights and optimizer state, with names, at any ZeRO stage."""
    for name, parameter in engine.module.named_parameters():
        yield name, getattr(parameter, "ds_tensor", parameter)
    # ZeRO wraps torch's optimizer, whose parameters are then the float32 copies of this rank's share.
    optimizer = getattr(engine.optimizer, "optimizer", engine.optimizer)
    for parameter, moments in optimizer.state.items():
        yield "the optimizer's weights", parameter
        yield from ((f"the optimizer's {name}", value) for name, value in moments.items() if torch.is_tensor(value))
