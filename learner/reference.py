"""The frozen reference: the policy that KL in the loss holds the training close to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from learner.config import ModelConfig
from learner.packing import Microbatch
from learner.policy import load_policy, policy_inputs


class Reference:
    """A frozen copy of the model that training began with, whole on every rank."""

    def __init__(self, folder: Path | str, config: ModelConfig, temperature: float, device: torch.device) -> None:
        self._policy = load_policy(folder, config, temperature).requires_grad_(False).to(device)
        self._device = device

    @torch.no_grad()
    def logprobs(self, microbatch: Microbatch) -> Tensor:
        """Log-probabilities of the microbatch's completion tokens, in nats."""
        return self._policy(*policy_inputs(microbatch, self._device))[0]
