"""Settings of the learner: the policy's model, the algorithm, the optimizer, DeepSpeed and packing.

Imports neither torch nor transformers, so that a recipe is validated before anything slow loads.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from learner.algorithm.settings import AlgorithmConfig, Settings
from rollout.types.paths import from_home

Dtype = Literal["float32", "bfloat16"]

PARITY_LIMITS: dict[Dtype, float] = {"float32": 1e-3, "bfloat16": 0.05}
"""Largest mean gap in nats between sampler and learner that rounding explains, by dtype."""


class BuildConfig(Settings, frozen=True):
    """A policy that is created from a config instead of loaded, with random weights and a word-level tokenizer.

    The tokenizer knows the integers ``0..max_integer``, one token each, the ``words``, and two special tokens.
    """

    architecture: Literal["qwen3"] = "qwen3"
    """The model family. Qwen2 is not offered: AutoTokenizer replaces a qwen2 folder's tokenizer by its own."""
    hidden_size: int = Field(default=96, gt=0, le=65_536)
    """Width of the residual stream."""
    num_layers: int = Field(default=4, gt=0, le=1_000)
    """Number of transformer blocks."""
    num_heads: int = Field(default=3, gt=0, le=1_024)
    """Number of query heads."""
    num_kv_heads: int = Field(default=3, gt=0, le=1_024)
    """Number of key and value heads; fewer than ``num_heads`` is grouped-query attention."""
    head_size: Literal[32, 64, 80, 96, 112, 128, 160, 192, 224, 256] = 32
    """Width of one head. vLLM's attention on CPUs supports only these sizes."""
    intermediate_size: int = Field(default=288, gt=0, le=1_048_576)
    """Width of the feed-forward layer."""
    init_std: float = Field(default=0.04, gt=0)
    """Standard deviation of the initial weights."""
    rope_theta: float = Field(default=1e4, gt=0)
    """Base period of the rotary embedding, in tokens."""
    max_position_embeddings: int = Field(default=512, gt=0, le=10_000_000)
    """Longest sequence, prompt and completion together, in tokens."""
    tie_embeddings: bool = True
    """Whether the LM head shares its weights with the input embedding."""
    max_integer: int = Field(ge=0, le=1_000_000)
    """Integers 0 to this one are one token each; text with a greater integer is refused."""
    words: tuple[str, ...]
    """The text of every other token; the longest that matches wins. Digits are reserved for the integers."""
    eos: str = "<|eos|>"
    """Text of the token that ends a completion."""
    pad: str = "<|pad|>"
    """Text of the padding token."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads is {self.num_kv_heads}, which does not divide num_heads ({self.num_heads}): "
                f"set num_kv_heads to a divisor of {self.num_heads}"
            )
        return self

    @model_validator(mode="after")
    def _vocabulary_is_unambiguous(self) -> Self:
        texts = (*self.words, self.eos, self.pad)
        repeated = sorted({text for text in texts if texts.count(text) > 1})
        if repeated:
            raise ValueError(f"words, eos and pad repeat {repeated}: list every token's text once")
        if "" in texts:
            raise ValueError('words, eos or pad holds the empty text "": remove it')
        with_digits = [word for word in self.words if any(character.isdigit() for character in word)]
        if with_digits:
            raise ValueError(f"words holds {with_digits} with digits: digits belong to the integers 0..max_integer")
        return self


class LoraConfig(Settings, frozen=True):
    """Low-rank adapters (arXiv:2106.09685): the weights are frozen, and small added matrices are trained."""

    rank: int = Field(default=16, ge=1, le=8_192)
    """Inner size of the adapters. Raise it when the reward stays below that of full fine-tuning."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapters' product is scaled by ``alpha / rank``. Twice the rank is a usual choice."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get an adapter, such as ``["q_proj", "v_proj"]``; ``all-linear``: all but the LM
    head. Experts that are stored as one tensor are not linear layers, and stay frozen."""

    @field_validator("target_modules")
    @classmethod
    def _names_something(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        if not value:
            raise ValueError('target_modules is empty: name layers, such as ["q_proj", "v_proj"], or use "all-linear"')
        return value


class ModelConfig(Settings, frozen=True):
    """The policy that is trained, and how it computes."""

    path: str | None = None
    """A Hugging Face folder or hub name, a GGUF file, or `package:NAME/FILE` (docs/models.md). This or ``build``."""
    build: BuildConfig | None = None
    """A small policy to create from a config. Give this or ``path``."""
    dtype: Dtype = "bfloat16"
    """Dtype of weights and activations; the optimizer's copy is always float32. bfloat16 needs
    ``learner.zero_stage`` 1 or more. ``auto``: bfloat16, but float32 where the run computes on a CPU without hardware
    support for bfloat16, where bfloat16 is slow."""
    attention: Literal["sdpa", "flash_attention_2", "flex_attention", "auto"] = "auto"
    """Attention of the learner. ``auto`` uses flash_attention_2 if flash-attn is installed and there is a GPU.
    ``flex_attention``, which is part of PyTorch, computes a prompt once for its completions on a GPU too; no GPU has
    tested it yet. On the CPU it means ``sdpa``, which does the same there."""
    lora: LoraConfig | None = None
    """Train adapters instead of all weights; gradients and optimizer state are then as small as the adapters. Unset:
    train all weights."""
    teacher: str | None = None
    """A frozen model that replaces the initial policy as the reference of the KL. Name it as in ``path``; it needs the
    policy's tokenizer. The preset ``distill`` trains only on this KL."""

    @field_validator("path", "teacher")
    @classmethod
    def _expand_home(cls, path: str | None) -> str | None:
        return path and from_home(path)

    @model_validator(mode="after")
    def _exactly_one_source(self) -> Self:
        if (self.path is None) == (self.build is None):
            both_or_neither = "neither" if self.path is None else f"both (path = {self.path!r})"
            raise ValueError(f"path and build: {both_or_neither} given; set exactly one of them")
        return self


class OptimizerConfig(Settings, frozen=True):
    """AdamW and its learning rate schedule."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak learning rate. About 1e-6 for billions of parameters, 1e-4 and more below a million."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Shape of the decay that follows warmup and hold."""
    lr_hold_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of all optimizer steps, counted from the start, before the decay begins."""
    lr_min_ratio: float = Field(default=0.0, ge=0, le=1)
    """The learning rate of the last optimizer step, as a share of the peak. With 0 the rate reaches 0 one step after
    the last, so that every step changes the weights."""
    warmup_steps: int = Field(default=0, ge=0)
    """Optimizer steps over which the learning rate rises linearly to its peak."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's first and second moment. For short runs use 0.95 to 0.99 for the second."""
    adam_eps: float = Field(default=1e-8, gt=0)
    """Added to Adam's denominator."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay, on every parameter."""
    max_grad_norm: float = Field(default=1.0, gt=0, allow_inf_nan=True)
    """Gradients with a larger global 2-norm are scaled down to it; inf: no clipping."""

    @model_validator(mode="after")
    def _betas_in_range(self) -> Self:
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas is {self.adam_betas}: both must be at least 0 and below 1")
        return self


class LearnerConfig(OptimizerConfig, frozen=True):
    """The group of learner ranks that trains the policy."""

    algorithm: AlgorithmConfig = AlgorithmConfig()
    """How rewards become a loss."""
    num_ranks: int = Field(default=1, gt=0, le=10_000)
    """Processes that share the update; one per GPU."""
    threads_per_rank: int | None = Field(default=None, gt=0, le=1_024)
    """CPU threads of one rank. Unset: 1; with ``offload_optimizer`` and a GPU, the rank's share of the cores."""
    cpus_per_rank: float = Field(default=1.0, ge=0)
    """CPUs that Ray reserves for one rank. It may be below ``threads_per_rank`` if generator and learner take turns."""
    max_tokens_per_microbatch: int = Field(default=4096, gt=0)
    """Largest number of tokens in one forward pass, padding included. It changes the memory of activations, not the
    results. Lower it when the update runs out of memory; on CPUs 2048 fits the caches."""
    updates_per_step: int = Field(default=1, gt=0)
    """Optimizer steps per step, each on its share of the groups. A value above 1 costs one more forward pass."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What is partitioned over the ranks: 0 nothing, 1 optimizer state, 2 also gradients, 3 also weights."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """``adamw_8bit`` (bitsandbytes, GPU only) keeps Adam's moments in 2 bytes per parameter instead of 8."""
    offload_optimizer: bool = False
    """Keep optimizer state in CPU memory: saves 12 bytes per parameter on the GPU, but the optimizer step is slower."""
    gpu_memory_fraction: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of the GPU's memory that a rank's tensors may use. A rank that needs more fails, so that the generator is
    not affected. Unset: the memory plan's value on a shared GPU, else no limit."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: much less memory, about a third more time."""
    max_skipped_updates: int = Field(default=3, ge=1)
    """Number of updates in a row that may be skipped because a gradient is not finite; one more stops the run."""
    max_logprob_gap: float | None = Field(default=None, gt=0)
    """Mean absolute gap in nats between rollout and learner logprobs above which the run stops. The default is
    0.001 in float32 and 0.05 in bfloat16."""

    @model_validator(mode="after")
    def _offload_fits(self) -> Self:
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer is true with zero_stage 0: set zero_stage to 1, 2 or 3")
        if self.offload_optimizer and self.optimizer == "adamw_8bit":
            raise ValueError(
                'offload_optimizer is true with optimizer "adamw_8bit", whose kernels run on the GPU: keep one of the '
                "two"
            )
        return self

    def parity_limit(self, dtype: Dtype) -> float:
        """Return ``max_logprob_gap`` or its default for ``dtype``, in nats."""
        return PARITY_LIMITS[dtype] if self.max_logprob_gap is None else self.max_logprob_gap


class WarmStartConfig(OptimizerConfig, frozen=True):
    """Supervised training of the policy before the first step, with its own optimizer."""

    num_steps: int = Field(default=0, ge=0)
    """Optimizer steps of the warm start; 0 turns it off."""
    data: str | None = None
    """JSONL file with ``prompt`` and ``completion``, one pair per line. Unset: synthetic traces of the task."""
    pretrained: bool = False
    """Allow a warm start with synthetic traces for a model of ``model.path``. By default it is refused, because
    settings for a policy with random weights would ruin a pretrained model."""
    sequences_per_step: int = Field(default=32, gt=0, le=1_000_000)
    """Examples in one optimizer step, over all ranks."""
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    """Seed of the examples' order, and of the random weights of ``model.build``."""
    lr_schedule: Literal["constant", "cosine", "linear"] = "linear"
    """Shape of the decay that follows warmup and hold."""
    lr_hold_fraction: float = Field(default=0.5, ge=0, le=1)
    """Share of all optimizer steps, counted from the start, before the decay begins."""

    @field_validator("data")
    @classmethod
    def _expand_home(cls, data: str | None) -> str | None:
        return data and from_home(data)

    def applied_to(self, learner: LearnerConfig) -> LearnerConfig:
        """Return the settings of the warm start's Learner: ``learner`` with this optimizer, no critic, no reference."""
        optimizer = {name: getattr(self, name) for name in OptimizerConfig.model_fields}
        return learner.model_copy(update=optimizer | {"updates_per_step": 1, "algorithm": AlgorithmConfig()})
