"""Prove that a model's logits are only its LM head times the last hidden state, as ``Policy`` computes them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

SIZES = (0.0, 1.0, 64.0)
"""Largest logit of each hidden state in the check: the first shows a bias, the others a factor, the last a cap."""
TOLERANCE = 0.02
"""Largest difference as a share of the largest logit; rounding in bfloat16 explains 0.004."""


class _TrunkOutput(BaseModelOutputWithPast):
    """The output of a trunk in which all fields except the hidden states are None."""

    def __getattr__(self, name: str) -> None:
        return None


def check_head(model: PreTrainedModel, folder: Path | str) -> None:
    """Compare the model's own logits with ``hidden @ lm_head.T``, on random hidden states.

    The trunk is not run, so it takes milliseconds for a model of any size and attention.

    Raises:
        ValueError: they differ because of a bias, a scaling, a cap or a projection, which the loss would ignore; or
            the model has no ``lm_head``.
    """
    head = getattr(model, "lm_head", None)
    if not isinstance(head, nn.Linear) or head is not model.get_output_embeddings() or model.base_model is model:
        raise ValueError(f"{folder} is a {type(model).__name__} without a linear lm_head on a trunk: use another model")
    hidden_TH = _hidden_states(head.weight)
    own_TV = _own_logits(model, hidden_TH)
    gaps_T = (own_TV - (hidden_TH @ head.weight.T).float()).abs().amax(-1)
    differs = any(gap > TOLERANCE * size for gap, size in zip(gaps_T.tolist(), SIZES, strict=True))
    if head.bias is not None or differs:
        raise ValueError(
            f"{folder}: the logits of a {type(model).__name__} are not its LM head times the last hidden state, but "
            f"the learner computes nothing else; it has {_causes(model, head)}. Use another model"
        )


@torch.no_grad()
def _hidden_states(head_VH: Tensor) -> Tensor:
    """Return hidden states whose largest logits are ``SIZES``. The caller's random state does not change."""
    direction_H = torch.randn(head_VH.shape[1], generator=torch.Generator().manual_seed(0)).to(head_VH)
    largest = (head_VH @ direction_H).abs().max().float()
    return torch.stack([size * direction_H / largest for size in SIZES]).to(head_VH)


@torch.no_grad()
def _own_logits(model: PreTrainedModel, hidden_TH: Tensor) -> Tensor:
    """Return the model's logits in float32, as if its trunk had returned these hidden states."""
    trunk = model.base_model
    output = _TrunkOutput(last_hidden_state=hidden_TH[None])  # type: ignore[arg-type]  # any floating tensor
    trunk.forward = lambda *_, **__: output
    try:
        token_ids = torch.zeros(1, len(hidden_TH), dtype=torch.long)
        return model(input_ids=token_ids).logits[0].float()
    finally:
        del trunk.forward


def _causes(model: PreTrainedModel, head: nn.Linear) -> str:
    """Return the settings and parameters of the model that are known to change logits."""
    config = model.config.to_dict().items()
    named = {name: value for name, value in config if ("logit" in name or "lm_head" in name) and "attn" not in name}
    causes = [f"{name} = {value}" for name, value in named.items() if value not in (None, 0, 1)]
    if head.bias is not None:
        causes.append("a bias of the LM head")
    return ", ".join(causes) or "its own code for logits"
