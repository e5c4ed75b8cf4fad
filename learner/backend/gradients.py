"""Gradients that are not finite: find them while they are computed, and name the microbatch and the parameter."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from learner.parity import NonFiniteError, first_names


class NonFiniteGradientError(NonFiniteError):
    """Too many updates in a row had a gradient that is not finite. Crosses process borders."""


class GradientWatch:
    """A watch over the gradient of every trained parameter, as each backward pass computes it.

    Flags stay on the device until ``found`` reads them, once for each optimizer step.
    """

    def __init__(self, module: nn.Module) -> None:
        self._microbatches: list[tuple[str, list[Tensor]]] = []
        self._parameters: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(partial(self._look, name))

    def begin(self, microbatch: str) -> None:
        """Name the microbatch that the following gradients belong to; the name is for messages."""
        self._microbatches.append((microbatch, []))

    def clear(self) -> None:
        """Forget the gradients seen so far, after an optimizer step or instead of one."""
        self._microbatches.clear()
        self._parameters.clear()

    def found(self) -> list[str]:
        """Return the microbatches whose gradient is not finite, each with the parameters that show it."""
        bad = [name for name, flags in self._microbatches if flags and bool(torch.stack(flags).any())]
        if not bad:
            return []
        parameters = [name for name, flag in self._parameters.items() if bool(flag)]
        return [f"{name} (in {len(parameters)} parameters: {first_names(parameters)})" for name in bad]

    def _look(self, name: str, gradient: Tensor) -> None:
        is_bad = gradient.isfinite().all().logical_not()
        self._microbatches[-1][1].append(is_bad)
        known = self._parameters.get(name)
        self._parameters[name] = is_bad if known is None else known | is_bad
