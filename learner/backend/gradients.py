"""Find gradients that are not finite while they are computed, and name the microbatch and the parameter."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from learner.parity import NonFiniteError, first_names


class NonFiniteGradientError(NonFiniteError):
    """Too many updates in a row had a gradient that is not finite. Can be pickled."""


class GradientWatch:
    """Checks the gradient of every trained parameter during each backward pass.

    Flags stay on the device until ``found`` reads them, once for each optimizer step.
    """

    def __init__(self, module: nn.Module) -> None:
        self._microbatches: list[tuple[str, list[Tensor]]] = []
        self._parameters: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(partial(self._look, name))

    def begin(self, microbatch: str) -> None:
        """Start the microbatch of the following gradients; its name is for messages."""
        self._microbatches.append((microbatch, []))

    def clear(self) -> None:
        """Drop the flags so far: after an optimizer step, or instead of one."""
        self._microbatches.clear()
        self._parameters.clear()

    def found(self) -> list[str]:
        """Return the microbatches whose gradient is not finite, each with the parameters where any was not finite."""
        bad = [name for name, flags in self._microbatches if flags and bool(torch.stack(flags).any())]
        if not bad:
            return []
        parameters = [name for name, flag in self._parameters.items() if bool(flag)]
        return [f"{name} (in {len(parameters)} parameters: {first_names(parameters)})" for name in bad]

    def _look(self, name: str, gradient: Tensor) -> None:
        is_bad = gradient.isfinite().all().logical_not()
        self._microbatches[-1][1].append(is_bad)
        was_bad = self._parameters.get(name)
        self._parameters[name] = is_bad if was_bad is None else was_bad | is_bad
