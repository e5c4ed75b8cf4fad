"""The policy as the learner sees it: a Hugging Face model that returns log-probabilities of chosen tokens.

Shape legend: ``_R`` rows, ``_L`` positions of a row, ``_T`` completion tokens.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.config import ModelConfig
from learner.logprobs import token_logprobs
from learner.packing import Layout, Microbatch

PolicyInputs = tuple[Tensor, Tensor, Tensor, Tensor]
"""``(token_ids, position_ids, predictors, targets)``, the arguments of ``Policy.forward``."""


class Policy(nn.Module):
    """A causal language model whose output is the log-probabilities of completion tokens."""

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature

    def forward(
        self,
        token_ids_RL: Int[Tensor, "R L"],
        position_ids_RL: Int[Tensor, "R L"],
        predictors_T: Int[Tensor, " T"],
        targets_T: Int[Tensor, " T"],
    ) -> tuple[Float[Tensor, " T"], Float[Tensor, " T"]]:
        """Log-probabilities of the targets and entropies where they were drawn, in nats, temperature applied."""
        # No attention mask: transformers then takes position ids that restart for packed sequences.
        hidden_RLH = self.model.base_model(
            input_ids=token_ids_RL, position_ids=position_ids_RL, use_cache=False
        ).last_hidden_state
        hidden_TH = hidden_RLH.flatten(0, 1)[predictors_T]
        return token_logprobs(hidden_TH, self.model.lm_head.weight, targets_T, temperature=self.temperature)


def load_policy(folder: Path | str, config: ModelConfig, temperature: float) -> Policy:
    """The model of a Hugging Face folder or hub name, on the CPU, in ``config.dtype``.

    Raises:
        ValueError: the model changes its logits after the LM head, which ``Policy`` would leave out.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, config.dtype), attn_implementation=resolve_attention(config)
    )
    for setting in ("final_logit_softcapping", "logits_scaling", "logit_scale"):
        if getattr(model.config, setting, None) is not None:
            raise ValueError(
                f"{folder} has {setting} in its config, which the learner does not apply: use another model"
            )
    return Policy(model, temperature)


def resolve_attention(config: ModelConfig) -> str:
    """``config.attention``, with ``auto`` decided by what this machine has."""
    if config.attention != "auto":
        return config.attention
    usable = config.dtype == "bfloat16" and torch.cuda.is_available() and find_spec("flash_attn") is not None
    return "flash_attention_2" if usable else "sdpa"


def layout_for(attention: str) -> Layout:
    """The microbatch layout in which an attention implementation is fastest."""
    return "flat" if attention == "flash_attention_2" else "rows"


def policy_inputs(microbatch: Microbatch, device: torch.device) -> PolicyInputs:
    """The microbatch's arrays that ``Policy.forward`` takes, on ``device``."""
    arrays = (microbatch.token_ids, microbatch.position_ids, microbatch.predictors, microbatch.targets)
    token_ids, position_ids, predictors, targets = (torch.from_numpy(array).to(device) for array in arrays)
    return token_ids, position_ids, predictors, targets
