"""DeepSpeed's engine, which partitions model, gradients and optimizer over the ranks.

Call ``forward_backward`` for each microbatch, and ``optim_step`` after the last one.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from learner.algorithm.losses import Stats
from learner.algorithm.objective import ObjectiveFunction
from learner.backend.deepspeed_settings import adamw_8bit, deepspeed_settings, parameter_groups
from learner.backend.finiteness import non_finite, training_state
from learner.backend.gradients import GradientWatch
from learner.backend.rank import Rank, join_ranks, limit_memory
from learner.config import Dtype, LearnerConfig
from learner.microbatches import Microbatch
from learner.model.policy import Distribution, Policy, PolicyOutput, policy_inputs
from learner.parity import NonFiniteError, first_names


class Backend:
    """A policy in training. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, policy: Policy, config: LearnerConfig, dtype: Dtype, rank: Rank) -> None:
        import deepspeed  # imported after rank.py has chosen the accelerator

        join_ranks(rank)
        limit_memory(config.gpu_memory_fraction)
        if config.gradient_checkpointing:
            recompute_activations(policy)
        self.rank = rank
        self.num_microbatches = 0
        """Number of microbatches that this rank has computed, with or without backward pass: its progress."""
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
        self, microbatch: Microbatch, objective: ObjectiveFunction, reference: Distribution | None
    ) -> Stats:
        """Add the gradient of one microbatch's part of the loss, and return the objective's sums over its tokens."""
        self._watch.begin(f"prompts {', '.join(microbatch.prompt_ids)}")
        output = PolicyOutput(*self.engine(*policy_inputs(microbatch, self.device), reference))
        loss, stats = objective(output, microbatch)
        # The loss's denominator is global, so gradients must be summed over ranks and microbatches. DeepSpeed averages
        # over ranks and scales by accumulation steps: undo both.
        self.engine.backward(loss * self.rank.world_size, scale_wrt_gas=False)
        self.num_microbatches += 1
        return stats

    @torch.no_grad()
    def score(self, microbatch: Microbatch) -> PolicyOutput:
        """Return the current policy's and critic's output on the microbatch's completion tokens, without gradient."""
        self.num_microbatches += 1
        return PolicyOutput(*self.engine(*policy_inputs(microbatch, self.device)))

    @torch.no_grad()
    def hidden(self, microbatch: Microbatch) -> Tensor:
        """Return the last hidden states that predict the completion tokens, shape ``[T, H]``, without gradient."""
        return self.engine(*policy_inputs(microbatch, self.device), only_hidden=True)[0]

    def optim_step(self, learning_rate: float) -> float:
        """Clip and apply the gradients, and return their global 2-norm before clipping."""
        for group, factor in zip(self.engine.optimizer.param_groups, self._lr_factors, strict=True):
            group["lr"] = learning_rate * factor
        self.engine.step()
        self._watch.clear()
        norm = self.engine.get_global_grad_norm() if self._clipped_norm is None else self._clipped_norm
        assert norm is not None, "DeepSpeed computed no gradient norm"
        return float(norm)

    def non_finite_gradients(self) -> list[str]:
        """Return the microbatches with a non-finite gradient since the last optimizer step; the same on every rank."""
        names = [f"rank {self.rank.index}, {name}" for name in self._watch.found()]
        return [name for of_rank in self.gather(names) for name in of_rank]

    def non_finite_weights(self) -> list[str]:
        """Return the names of weights and optimizer moments that are not finite on any rank; the same on every rank."""
        bad = dict.fromkeys(non_finite(training_state(self.engine)))
        return [f"{name} on rank {rank}" for rank, of_rank in enumerate(self.gather(list(bad))) for name in of_rank]

    def prove_finite(self, holder: str, remedy: str) -> None:
        """Raise NonFiniteError if weights or moments are not finite. `holder` and `remedy` are for its message."""
        if bad := self.non_finite_weights():
            raise NonFiniteError(f"{holder} holds NaN or infinity, in {first_names(bad)}. {remedy}")

    def drop_gradients(self) -> None:
        """Drop the gradients that ``forward_backward`` has added since the last optimizer step."""
        self._watch.clear()
        self.engine.optimizer.zero_grad()
        self.engine.zero_grad()
        if self.zero_stage in (1, 2):
            # zero_grad keeps the partitions that ZeRO 2 has already reduced; DeepSpeed's step() drops them this way.
            self.engine.optimizer.averaged_gradients.clear()
            self.engine.optimizer.all_grad_tensors.clear()
            self.engine.optimizer.micro_step_id = -1

    def all_reduce(self, values: dict[str, float], operation: dist.ReduceOp.RedOpType) -> dict[str, float]:
        """Reduce the values of all ranks by name; every rank must have the same names."""
        names = sorted(values)
        reduced = torch.tensor([values[name] for name in names], dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, op=operation)
        return dict(zip(names, reduced.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, by rank. A value must be picklable."""
        gathered: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def close(self) -> None:
        """Free the engine's memory. The process group remains for the next engine."""
        self.engine.destroy()
        forget(self.policy)

    def _clip_before_step(self, max_grad_norm: float) -> None:
        """Clip in a hook that keeps the norm: without ZeRO in float32 DeepSpeed does not report it."""

        def clip(*_: Any) -> None:
            self._clipped_norm = float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), max_grad_norm))

        self.engine.optimizer.register_step_pre_hook(clip)


def recompute_activations(policy: Policy) -> None:
    """Let the policy's layers keep only their inputs, and compute the rest again in the backward pass."""
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in policy.model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            # transformers recomputes a layer in training mode only. The modules in it stay in evaluation mode, as
            # from_pretrained leaves them: dropout and noisy routing would make another policy than the sampler's.
            module.training = True


def forget(policy: Policy) -> None:
    """Make DeepSpeed release a policy whose engine was destroyed: with ZeRO 3 it keeps the policy for ever."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    # This list has every model that was set up.
    FWD_MODULE_STACK[:] = [module for module in FWD_MODULE_STACK if module is not policy]
    # A method's lru_cache keeps its arguments, which refer to the engine of every model that was called twice.
    cached = vars(PartitionedParameterCoordinator)["_PartitionedParameterCoordinator__params_to_release"]
    inspect.getclosurevars(cached).nonlocals["func"].cache_clear()


class StatsAccumulator:
    """The statistics of a step so far: sums, and maxima if a name ends in ``_max``."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, stats: Stats) -> None:
        """Add the scalars of one microbatch. Nothing is read from the device before ``reduce``."""
        for name, value in stats.items():
            self._values[name].append(value.detach())

    def reduce(self, backend: Backend) -> dict[str, float]:
        """Return the totals over all microbatches of all ranks. Collective; every rank must have the same names."""
        values = {name: [float(value) for value in values] for name, values in self._values.items()}
        maxima = {name: max(values[name]) for name in values if name.endswith("_max")}
        sums = {name: sum(values[name]) for name in values if name not in maxima}
        return backend.all_reduce(sums, dist.ReduceOp.SUM) | backend.all_reduce(maxima, dist.ReduceOp.MAX)
