"""The learner's policy: a Hugging Face model that returns log-probabilities of chosen tokens.

Shape legend: ``_R`` rows, ``_L`` positions of a row, ``_T`` completion tokens, ``_H`` hidden size, ``_V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from learner.config import ModelConfig
from learner.microbatches import Microbatch
from learner.model.attention import decide_attention
from learner.model.head import check_head
from learner.model.loading import load_whole
from learner.model.logprobs import token_scores
from learner.model.lora import add_adapters, base_fingerprint

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn.attention.flex_attention import BlockMask

FLEX = "flex_attention"
NO_LIMIT = 2**40
"""A break-even length beyond any row."""


class PolicyOutput(NamedTuple):
    """The output of a forward pass for the completion tokens of a microbatch, in nats, with temperature."""

    logprobs_T: Float[Tensor, " T"]
    entropy_T: Float[Tensor, " T"]
    """Entropy of the policy's distribution at each token."""
    values_T: Float[Tensor, " T"]
    """The critic's estimate before each token, in units of the reward; zeros without a critic."""
    reference_kl_T: Float[Tensor, " T"]
    """KL(policy || reference) over the vocabulary; zeros if the reference's distribution was not given."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """The reference's distribution over the vocabulary, given by hidden states and LM head."""

    hidden_TH: Float[Tensor, "T H"]
    head_VH: Float[Tensor, "V H"] | None
    """None: the policy's own LM head, which adapters never change."""


class Policy(nn.Module):
    """A causal language model that scores completion tokens, with a critic on its trunk if one is used."""

    def __init__(self, model: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.value_head: nn.Module | None = None
        self.base_fingerprint = ""
        """Fingerprint of the frozen weights under adapters; empty without adapters."""
        # A tuple hides it from this module's parameters, which already include those of ``model``.
        self._adapters: tuple[PeftModel, ...] = ()

    @property
    def adapters(self) -> PeftModel | None:
        """The LoRA adapters within ``model``, if it has any."""
        return self._adapters[0] if self._adapters else None

    def forward(
        self,
        token_ids_RL: Int[Tensor, "R L"],
        position_ids_RL: Int[Tensor, "R L"],
        predictors_T: Int[Tensor, " T"],
        targets_T: Int[Tensor, " T"],
        parts_RL: Int[Tensor, "R L"] | None = None,
        reference: Distribution | None = None,
        only_hidden: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return the fields of ``PolicyOutput`` as a plain tuple, which DeepSpeed's hooks can traverse.

        Args:
            parts_RL: as in ``Microbatch``. None: each token attends to all tokens before it.
            reference: the other distribution of the exact KL.
            only_hidden: return only ``(hidden_TH,)``.
        """
        # Without an attention mask, transformers treats position ids that restart as packed sequences.
        mask = None if parts_RL is None else attention_mask(parts_RL, attention_of(self.model))
        hidden_RLH = self.model.base_model(
            input_ids=token_ids_RL, position_ids=position_ids_RL, attention_mask=mask, use_cache=False
        ).last_hidden_state
        hidden_TH = hidden_RLH.flatten(0, 1)[predictors_T]
        if only_hidden:
            return (hidden_TH,)
        head_VH = self.model.lm_head.weight
        pair = None
        if reference is not None:
            pair = reference.hidden_TH, head_VH if reference.head_VH is None else reference.head_VH
        scores = token_scores(hidden_TH, head_VH, targets_T, temperature=self.temperature, reference=pair)
        zeros_T = torch.zeros_like(scores.logprobs_T)
        values_T = zeros_T if self.value_head is None else self.value_head(hidden_TH)[:, 0].float()
        reference_kl_T = zeros_T if scores.reference_kl_T is None else scores.reference_kl_T
        return scores.logprobs_T, scores.entropy_T, values_T, reference_kl_T

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Turn the adapters off until the context ends. The policy must have adapters."""
        assert self.adapters is not None, "a policy without adapters has no base"
        with self.adapters.disable_adapter():
            yield


PolicyInputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]
"""``(token_ids, position_ids, predictors, targets, parts)``, the arguments of ``Policy.forward``."""


def load_policy(folder: Path | str, config: ModelConfig, temperature: float) -> Policy:
    """Load a Hugging Face folder or hub name on the CPU, in ``config.dtype``, with adapters if ``config.lora`` is set.

    Raises:
        ValueError: transformers would make a different model of the folder's weights; or the model's logits are not
            only its LM head times the last hidden state; or ``config.lora`` names a layer that it does not have.
    """
    model = load_whole(folder, dtype=getattr(torch, config.dtype), attn_implementation=resolve_attention(config))
    check_head(model, folder)
    policy = Policy(model, temperature)
    if config.lora is not None:
        policy.base_fingerprint = base_fingerprint(model)
        policy._adapters = (add_adapters(model, config.lora),)
    return policy


def add_value_head(policy: Policy) -> None:
    """Put a critic of two layers on the policy's trunk. Its last layer starts at zero, so that every value is 0."""
    hidden_size = policy.model.config.hidden_size
    first, last = nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, 1)
    # Every rank must start with the same weights, independent of its random state.
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also seed the GPUs, whose random state is not restored here.
        torch.default_generator.manual_seed(0)
        nn.init.normal_(first.weight, std=hidden_size**-0.5)
    for tensor in (first.bias, last.weight, last.bias):
        nn.init.zeros_(tensor)
    policy.value_head = nn.Sequential(first, nn.Tanh(), last).to(policy.model.dtype)


def resolve_attention(config: ModelConfig) -> str:
    """Return the attention that ``config`` gets on this machine."""
    return decide_attention(config, on_gpu=torch.cuda.is_available()).name


def policy_inputs(microbatch: Microbatch, device: torch.device) -> PolicyInputs:
    """Return the arguments of ``Policy.forward`` for a microbatch, as tensors on ``device``."""
    arrays = (microbatch.token_ids, microbatch.position_ids, microbatch.predictors, microbatch.targets)
    token_ids, position_ids, predictors, targets = (torch.from_numpy(array).to(device) for array in arrays)
    parts = None if microbatch.parts is None else torch.from_numpy(microbatch.parts).to(device)
    return token_ids, position_ids, predictors, targets, parts


def attention_of(model: PreTrainedModel) -> str:
    """Return the name of the attention that the model was loaded with."""
    return str(model.config._attn_implementation)


def attention_mask(parts_RL: Int[Tensor, "R L"], attention: str) -> Bool[Tensor, "R 1 L L"] | BlockMask:
    """Return which tokens each token attends to: itself and earlier ones, of the prompt and of its own part.

    ``sdpa`` holds this for each pair of tokens; ``flex_attention`` only while it finds the blocks of 128 by 128 tokens
    that it may skip, and evaluates it again in its kernels.
    """

    def attends(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own, other = parts_RL[row, query], parts_RL[row, key]
        return ((own == other) | (other == 0)) & (query >= key)

    num_rows, length = parts_RL.shape
    if attention == FLEX:
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(attends, num_rows, None, length, length, device=parts_RL.device)
    places_L = torch.arange(length, device=parts_RL.device)
    rows_R11 = torch.arange(num_rows, device=parts_RL.device)[:, None, None]
    return attends(rows_R11, rows_R11, places_L[:, None], places_L)[:, None]


def break_even_length(model: PreTrainedModel) -> int:
    """Return the length of a row, in tokens, at which attention takes as long as a block's matrix products.

    It is 0 for a model that must not share prompts: with a sliding window, which counts positions and ignores parts, or
    on a GPU without flex attention, where the mask has not been tested. With flex attention it is NO_LIMIT: what no
    token attends to is skipped, so that completions in one row cost what they cost in several.

    A block with attention size A, key-value size K and feed-forward size I takes ``2 H (2 A + 2 K + 3 I)`` operations
    per token, and 4 A more for each token that it attends to.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
        return 0
    if attention_of(model) == FLEX:
        return NO_LIMIT
    if torch.cuda.is_available():
        return 0
    block = sum(weights.numel() for name, weights in model.named_parameters() if ".layers.0." in f".{name}")
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return max(1, block // (2 * config.num_attention_heads * head_size))
