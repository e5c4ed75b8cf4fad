"""The frozen reference of the KL: a copy of the initial policy, the base model under LoRA, or a teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from learner.algorithm.settings import AlgorithmConfig
from learner.backend.forward_backward import Backend
from learner.config import ModelConfig
from learner.memory import reference_kind
from learner.microbatches import Microbatch
from learner.model.policy import Distribution, Policy, load_policy, policy_inputs


class Reference(Protocol):
    """A frozen policy. Its methods are collective."""

    def in_use(self) -> AbstractContextManager[None]:
        """Keep the reference on the device until the context ends; call the other methods only inside it."""
        ...

    def logprobs(self, microbatch: Microbatch) -> Tensor:
        """Return the log-probabilities of the microbatch's completion tokens, shape ``[T]``, in nats."""
        ...

    def distribution(self, microbatch: Microbatch) -> Distribution:
        """Return the reference's distributions over the vocabulary, for an exact KL."""
        ...


def build_reference(
    config: AlgorithmConfig, model: ModelConfig, folder: Path | str, temperature: float, backend: Backend
) -> Reference | None:
    """Return the reference that the settings need; None if ``kl_beta`` is 0.

    Raises ValueError if a teacher's vocabulary differs in size from the policy's.
    """
    kind = reference_kind(config, model)
    if kind == "none":
        return None
    if kind == "base":
        return AdapterBase(backend)
    policy = load_policy(model.teacher or folder, model.model_copy(update={"lora": None}), temperature)
    sizes = [each.model.config.get_text_config().vocab_size for each in (policy, backend.policy)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"model.teacher = {model.teacher!r} has a vocabulary of {sizes[0]:,} tokens, the policy one of "
            f"{sizes[1]:,}: use a teacher from the policy's family, with the same vocabulary"
        )
    return FrozenCopy(policy, backend.device, is_offloaded=kind == "offloaded")


class FrozenCopy:
    """A frozen model, complete on every rank; if offloaded, it is in CPU memory between uses."""

    def __init__(self, policy: Policy, device: torch.device, *, is_offloaded: bool) -> None:
        self._policy = policy.requires_grad_(False)
        self._device = device
        self._is_offloaded = is_offloaded
        if not is_offloaded:
            self._policy.to(device)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        if not self._is_offloaded:
            yield
            return
        self._policy.to(self._device)
        try:
            yield
        finally:
            self._policy.to("cpu")

    @torch.no_grad()
    def logprobs(self, microbatch: Microbatch) -> Tensor:
        return self._policy(*policy_inputs(microbatch, self._device))[0]

    @torch.no_grad()
    def distribution(self, microbatch: Microbatch) -> Distribution:
        (hidden_TH,) = self._policy(*policy_inputs(microbatch, self._device), only_hidden=True)
        return Distribution(hidden_TH, self._policy.model.lm_head.weight)


class AdapterBase:
    """The policy with its adapters switched off: a reference that costs no memory."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @contextmanager
    def in_use(self) -> Iterator[None]:
        yield

    def logprobs(self, microbatch: Microbatch) -> Tensor:
        with self._backend.policy.as_base():
            return self._backend.score(microbatch).logprobs_T

    def distribution(self, microbatch: Microbatch) -> Distribution:
        with self._backend.policy.as_base():
            return Distribution(self._backend.hidden(microbatch), head_VH=None)
