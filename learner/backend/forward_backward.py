"""DeepSpeed: the engine that shares model, gradients and optimizer over the ranks.

Two verbs do the work, ``forward_backward`` for each microbatch and ``optim_step`` after the last one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from learner.algorithm.losses import Stats
from learner.algorithm.objective import ObjectiveFunction
from learner.backend.deepspeed_settings import adamw_8bit, deepspeed_settings, parameter_groups
from learner.backend.gradients import GradientWatch
from learner.backend.rank import Rank, join_ranks, limit_memory
from learner.config import Dtype, LearnerConfig
from learner.model.policy import Distribution, Policy, PolicyOutput, policy_inputs
from learner.packing import Microbatch


class Backend:
    """A policy in training. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, policy: Policy, config: LearnerConfig, dtype: Dtype, rank: Rank) -> None:
        import deepspeed  # only now: rank.py has chosen the accelerator

        join_ranks(rank)
        limit_memory(config.gpu_memory_fraction)
        if config.gradient_checkpointing:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
            # transformers recomputes in training mode only; from_pretrained leaves the model in evaluation mode.
            policy.model.train()
        self.rank = rank
        self.zero_stage = config.zero_stage
        self._watch = GradientWatch(policy)
        groups = parameter_groups(policy, config.algorithm.value_lr_factor)
        self._lr_factors = [factor for _, factor in groups]
        parameters = [{"params": members} for members, _ in groups]
        self.engine, *_ = deepspeed.initialize(
            model=policy,
            model_parameters=parameters,
            optimizer=adamw_8bit(parameters, config) if config.optimizer == "adamw_8bit" else None,
            config=deepspeed_settings(config, dtype),
        )
        self.device = torch.device(self.engine.device)
        self._clipped_norm: float | None = None
        if config.zero_stage == 0 and dtype == "float32":
            self._clip_before_step(config.max_grad_norm)

    @property
    def policy(self) -> Policy:
        return self.engine.module

    def forward_backward(
        self, microbatch: Microbatch, objective: ObjectiveFunction, reference: Distribution | None = None
    ) -> Stats:
        """Adds the gradient of one microbatch's part of the loss, and returns the objective's sums."""
        self._watch.begin(f"prompts {', '.join(microbatch.prompt_ids)}")
        output = PolicyOutput(*self.engine(*policy_inputs(microbatch, self.device), reference))
        loss, stats = objective(output, microbatch)
        # The loss's denominator is global, so gradients must add up over ranks and microbatches. DeepSpeed averages
        # over ranks and would scale by accumulation steps: both are undone here.
        self.engine.backward(loss * self.rank.world_size, scale_wrt_gas=False)
        return stats

    @torch.no_grad()
    def score(self, microbatch: Microbatch) -> PolicyOutput:
        """What the current policy and critic say about the microbatch's completion tokens, without gradient."""
        return PolicyOutput(*self.engine(*policy_inputs(microbatch, self.device)))

    @torch.no_grad()
    def hidden(self, microbatch: Microbatch) -> Tensor:
        """The last hidden states that predict the completion tokens, shape ``[T, H]``, without gradient."""
        return self.engine(*policy_inputs(microbatch, self.device), only_hidden=True)[0]

    def optim_step(self, learning_rate: float) -> float:
        """Clips and applies the gradients, and returns their global 2-norm before clipping."""
        for group, factor in zip(self.engine.optimizer.param_groups, self._lr_factors, strict=True):
            group["lr"] = learning_rate * factor
        self.engine.step()
        self._watch.clear()
        norm = self.engine.get_global_grad_norm() if self._clipped_norm is None else self._clipped_norm
        assert norm is not None, "DeepSpeed computed no gradient norm"
        return float(norm)

    def non_finite_gradients(self) -> list[str]:
        """Where gradients since the last optimizer step are not finite, on any rank. The same list on every rank."""
        found = [f"rank {self.rank.index}, {bad}" for bad in self._watch.found()]
        return [bad for of_rank in self.gather(found) for bad in of_rank]

    def drop_gradients(self) -> None:
        """Forgets what ``forward_backward`` has added since the last optimizer step."""
        self._watch.clear()
        self.engine.optimizer.zero_grad()
        self.engine.zero_grad()
        if self.zero_stage in (1, 2):
            # zero_grad leaves the partitions that ZeRO 2 has reduced so far; its own step() drops them this way.
            self.engine.optimizer.averaged_gradients.clear()
            self.engine.optimizer.all_grad_tensors.clear()
            self.engine.optimizer.micro_step_id = -1

    def all_reduce(self, values: dict[str, float], operation: dist.ReduceOp.RedOpType) -> dict[str, float]:
        """The values of all ranks reduced by name; every rank gives the same names."""
        names = sorted(values)
        reduced = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, op=operation)
        return dict(zip(names, reduced.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank; each may be anything that can be pickled."""
        gathered: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def close(self) -> None:
        """Frees what the engine holds. The process group stays, for the next one."""
        self.engine.destroy()

    def _clip_before_step(self, max_grad_norm: float) -> None:
        """Without ZeRO in float32 DeepSpeed clips but does not tell the norm: clip here, where it is known."""

        def clip(*_: Any) -> None:
            self._clipped_norm = float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), max_grad_norm))

        self.engine.optimizer.register_step_pre_hook(clip)
