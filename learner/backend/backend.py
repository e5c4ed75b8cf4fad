"""DeepSpeed: the engine that shares model, gradients and optimizer over the ranks.

Two verbs do the work, ``forward_backward`` for each microbatch and ``optim_step`` after the last one.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from learner.algorithm.losses import Stats
from learner.algorithm.objective import ObjectiveFunction
from learner.backend.gradients import GradientWatch
from learner.config import Dtype, LearnerConfig
from learner.memory import REDUCE_BUCKET_ELEMENTS
from learner.model.policy import Distribution, Policy, PolicyOutput, policy_inputs
from learner.packing import Microbatch

if not torch.cuda.is_available():
    # Read once, when deepspeed is imported, which otherwise guesses from the packages it finds.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
from deepspeed.utils import logger


@dataclass(frozen=True, slots=True)
class Rank:
    """This process's place among the learner's ranks."""

    index: int = 0
    world_size: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = 29500

    @property
    def is_first(self) -> bool:
        return self.index == 0


def join(rank: Rank) -> None:
    """Joins the process group of all ranks: nccl with GPUs, gloo without. Does nothing the second time."""
    if dist.is_initialized():
        return
    if rank.master_addr == "127.0.0.1":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # DeepSpeed 0.19 calls collectives that torch 2.13 renamed, and torch says so at every call.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    # LOCAL_RANK is 0 always: a rank sees one GPU, the one that Ray gave it in CUDA_VISIBLE_DEVICES.
    os.environ |= {
        "RANK": str(rank.index),
        "WORLD_SIZE": str(rank.world_size),
        "LOCAL_RANK": "0",
        "MASTER_ADDR": rank.master_addr,
        "MASTER_PORT": str(rank.master_port),
    }
    logger.setLevel("WARNING")
    # DeepSpeed would compile its shared-memory collectives at start (90 s, and a C++ compiler), and they spin while
    # they wait; gloo does neither.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # The driver has a deadline for every call, and must learn from it which rank is late, not from a rank that gave up first.
    deepspeed.init_distributed(dist_backend=backend, verbose=False, timeout=timedelta(days=1))


def limit_memory(fraction: float | None) -> None:
    """Tensors beyond this share of the GPU fail here, and leave the rest to who shares it. None: no limit of ours.

    PyTorch's caching allocator counts; the CUDA context and NCCL's buffers, which it does not see, do not.
    """
    if fraction is not None and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(fraction)


class Backend:
    """A policy in training. Every method is collective: all ranks call it, in the same order."""

    def __init__(self, policy: Policy, config: LearnerConfig, dtype: Dtype, rank: Rank) -> None:
        join(rank)
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
            config=deepspeed_config(config, dtype),
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


def parameter_groups(policy: Policy, value_lr_factor: float) -> list[tuple[list[nn.Parameter], float]]:
    """What is trained, and at which multiple of the learning rate: the model, and the critic's head if there is one."""
    model = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    head = [] if policy.value_head is None else list(policy.value_head.parameters())
    return [(members, factor) for members, factor in ((model, 1.0), (head, value_lr_factor)) if members]


def adamw_8bit(parameters: list[dict[str, Any]], config: LearnerConfig) -> torch.optim.Optimizer:
    """bitsandbytes' AdamW, whose moments are kept in blocks of 8-bit numbers (arXiv:2110.02861).

    Raises ValueError without a GPU or the package.
    """
    if not torch.cuda.is_available() or find_spec("bitsandbytes") is None:
        raise ValueError(
            'learner.optimizer is "adamw_8bit", which needs a GPU and the package bitsandbytes: install it, or set '
            'learner.optimizer = "adamw"'
        )
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(
        parameters,
        lr=config.learning_rate,
        betas=config.adam_betas,
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
    )


def deepspeed_config(config: LearnerConfig, dtype: Dtype) -> dict[str, Any]:
    """DeepSpeed's settings for ours. Pure.

    ``managed_gradient_accumulation`` is off: the number of microbatches changes from step to step, and the optimizer
    steps when told to. Clipping is off without ZeRO in float32, where ``Backend`` clips.
    """
    optimizer = {
        "lr": config.learning_rate,
        "betas": list(config.adam_betas),
        "eps": config.adam_eps,
        "weight_decay": config.weight_decay,
        # PyTorch's own fused AdamW runs on CPUs and GPUs; DeepSpeed's kernels would be compiled at start.
        "torch_adam": True,
        "fused": True,
    }
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "reduce_bucket_size": REDUCE_BUCKET_ELEMENTS,
        "allgather_bucket_size": REDUCE_BUCKET_ELEMENTS,
    }
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    own_optimizer = {} if config.optimizer == "adamw_8bit" else {"optimizer": {"type": "AdamW", "params": optimizer}}
    return own_optimizer | {
        "train_micro_batch_size_per_gpu": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0 if config.zero_stage == 0 and dtype == "float32" else config.max_grad_norm,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed's list of optimizers known to work with ZeRO has its own and torch's; bitsandbytes' is not on it.
        "zero_allow_untested_optimizer": config.optimizer == "adamw_8bit",
        "bf16": {"enabled": dtype == "bfloat16"},
        "steps_per_print": None,
    }
