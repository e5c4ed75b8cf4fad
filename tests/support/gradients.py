"""The loss of an optimizer step and its gradients in float64, by the learner's own parts and by plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from learner.algorithm.credit_assignment import assign_advantages
from learner.algorithm.objective import Objective
from learner.algorithm.settings import AlgorithmConfig
from learner.backend.forward_backward import StatsAccumulator
from learner.config import LoraConfig
from learner.microbatches import Microbatch
from learner.model.logprob_pass import LogprobPass
from learner.model.policy import Policy, PolicyOutput, add_value_head, load_policy, policy_inputs
from learner.model.reference import FrozenCopy
from learner.packing import pack
from learner.sequences import sequences_from_groups
from rollout.types.completions import Group
from tests.support.oracle import credit, rows_of, say, step_loss
from tests.support.tiny import MAX_COMPLETION_TOKENS, MODEL, TEMPERATURE, learner_config

CPU = torch.device("cpu")


@dataclass
class Found:
    """A loss with its gradients, in one vector."""

    loss: float
    gradient: torch.Tensor


@dataclass
class Computed(Found):
    """What the learner's own parts give."""

    stats: dict[str, float]
    microbatches: tuple[Microbatch, ...]
    hidden_gradients: list[torch.Tensor]
    """By the last hidden states of each microbatch, shape [R * L, H]."""


class TrainingStep:
    """One optimizer step on groups; sampler, old policy, policy and reference all differ."""

    def __init__(
        self,
        folder: Path,
        groups: list[Group],
        algorithm: AlgorithmConfig,
        lora: bool = False,
        teacher: Path | None = None,
    ) -> None:
        self._algorithm = algorithm
        self._policy = policy = load_policy(
            folder, MODEL.model_copy(update={"lora": LoraConfig(rank=4) if lora else None}), TEMPERATURE
        )
        if algorithm.uses_critic:
            add_value_head(policy)
        policy.double()
        reference = load_policy(teacher or folder, MODEL, TEMPERATURE).double()
        self._reference = FrozenCopy(reference, CPU, is_offloaded=False)
        self._rows = [row for index, group in enumerate(groups) for row in rows_of(group, index)]
        shake(policy, 1)
        with torch.no_grad():
            self._old = [say(policy.model, row, self._critic) for row in self._rows]
            self._ref = [say(self._reference._policy.model, row) for row in self._rows]
        self._sequences = old_pass(policy, self._reference, groups, algorithm)
        shake(policy, 2)

    def by_learner(self, **packing: Any) -> Computed:
        """Compute as the learner does."""
        packing = {"layout": "rows", "break_even": 10_000} | packing
        return learners(self._policy, self._reference, self._sequences, self._algorithm, packing)

    def by_plain_pytorch(self) -> Found:
        """Compute the logits of each sequence alone, and mask what is no policy's token."""
        self._policy.zero_grad()
        credit(self._rows, self._old, self._ref, self._algorithm)
        said = zip(self._rows, self._old, self._ref, strict=True)
        rows = [(say(self._policy.model, row, self._critic), *others, row) for row, *others in said]
        loss = step_loss(rows, self._algorithm)
        loss.backward()
        return Found(loss.item(), gradient_of(self._policy))

    @property
    def _critic(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        head = self._policy.value_head
        return None if head is None else lambda hidden: head(hidden)[:, 0]


def shake(policy: Policy, seed: int) -> None:
    """Move every weight that is trained a little."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in policy.parameters():
            if weights.requires_grad:
                weights += 0.03 * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)


def old_pass(policy: Policy, reference: FrozenCopy, groups: list[Group], algorithm: AlgorithmConfig) -> list:
    backend = SimpleNamespace(
        score=torch.no_grad()(lambda microbatch: PolicyOutput(*policy(*policy_inputs(microbatch, CPU)))),
        gather=lambda value: [value],
    )
    config = learner_config(algorithm, updates_per_step=2)
    sequences = sequences_from_groups(groups)
    batch = pack(sequences, rank=0, num_ranks=1, max_tokens=64, layout="rows", break_even=10_000)
    sequences = LogprobPass(config, backend, reference).run(sequences, batch, StatsAccumulator())
    return assign_advantages(
        sequences, groups, algorithm, kl_beta=algorithm.kl_beta, max_completion_tokens=MAX_COMPLETION_TOKENS
    )


def learners(policy: Policy, reference: FrozenCopy, sequences: list, algorithm: AlgorithmConfig, packing) -> Computed:
    batch = pack(sequences, rank=0, num_ranks=1, max_tokens=100, **packing)
    objective = Objective(algorithm, batch, kl_beta=algorithm.kl_beta, max_completion_tokens=MAX_COMPLETION_TOKENS)
    policy.zero_grad()
    total, stats = 0.0, dict[str, float]()
    with hidden_states(policy) as hidden:
        for microbatch in batch.microbatches:
            theirs = reference.distribution(microbatch) if algorithm.kl_estimator == "exact" else None
            loss, counted = objective(PolicyOutput(*policy(*policy_inputs(microbatch, CPU), theirs)), microbatch)
            loss.backward()
            total += loss.item()
            stats = {name: stats.get(name, 0.0) + float(value) for name, value in counted.items()}
    gradients = [each.grad.flatten(0, 1) for each in hidden]
    return Computed(total, gradient_of(policy), stats, batch.microbatches, gradients)


@contextmanager
def hidden_states(policy: Policy) -> Iterator[list[torch.Tensor]]:
    """Keep the last hidden states of each forward pass, and their gradients."""
    kept: list[torch.Tensor] = []

    def keep(*arguments: Any) -> None:
        arguments[-1].last_hidden_state.retain_grad()
        kept.append(arguments[-1].last_hidden_state)

    hook = policy.model.base_model.register_forward_hook(keep)
    yield kept
    hook.remove()


def gradient_of(policy: Policy) -> torch.Tensor:
    return torch.cat([weights.grad.flatten() for weights in policy.parameters() if weights.grad is not None]).clone()
