"""DeepSpeed's settings, the optimizer, and the parameters that train at each learning rate."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from learner.config import Dtype, LearnerConfig
from learner.memory import REDUCE_BUCKET_ELEMENTS
from learner.model.policy import Policy


def parameter_groups(policy: Policy, value_lr_factor: float) -> list[tuple[list[nn.Parameter], float]]:
    """Return the trained parameters by multiple of the learning rate: the model's, and the critic's if there is one."""
    model = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    head = [] if policy.value_head is None else list(policy.value_head.parameters())
    return [(members, factor) for members, factor in ((model, 1.0), (head, value_lr_factor)) if members]


def adamw_8bit(parameters: list[dict[str, Any]], config: LearnerConfig) -> torch.optim.Optimizer:
    """Return bitsandbytes' AdamW, which keeps its moments in blocks of 8-bit numbers (arXiv:2110.02861).

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


def deepspeed_settings(config: LearnerConfig, dtype: Dtype) -> dict[str, Any]:
    """Return DeepSpeed's settings from ours. Pure.

    ``managed_gradient_accumulation`` is off: the number of microbatches changes from step to step, and ``Backend``
    decides when the optimizer steps. Clipping is off without ZeRO in float32, where ``Backend`` clips.
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
        # DeepSpeed tests ZeRO only with its own optimizers and torch's, and refuses others such as bitsandbytes'.
        "zero_allow_untested_optimizer": config.optimizer == "adamw_8bit",
        "bf16": {"enabled": dtype == "bfloat16"},
        "steps_per_print": None,
    }
