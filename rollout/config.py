"""Settings of traces, sampling and generation engines. Validating them loads nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from rollout.types.sampling import MAX_TEMPERATURE, check_temperature

MAX_SECONDS = 1e7
"""Longest deadline, seconds: 116 days. Timers overflow at much more."""


class TracesConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Synthetic traces that a warm start imitates, imperfect on purpose; see rollout/supervised/countdown.py.

    The first two also shape the traces of reasoning_gym and word_problems; the others are Countdown's alone.
    """

    give_up_rate: float = Field(default=0.75, ge=0, le=1)
    """Share of the traces that give up early. They leave reinforcement learning something to find: persistence."""
    give_up_within: int = Field(default=2, ge=1, le=1_000)
    """Most lines of a trace that gives up early."""
    oversight_rate: float = Field(default=0.15, ge=0, le=1)
    """Share of the other traces that overlook every solution. They show how a fruitless search ends."""
    max_lines: int = Field(default=9, ge=1, le=1_000)
    """Most lines of the other traces. Nine lines try everything that three numbers can make."""
    two_number_rate: float = Field(default=0.33, ge=0, le=1)
    """Share of the traces about two numbers only, which teach the arithmetic."""


class SamplingConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """How tokens are drawn. Logprobs are those of this distribution, on the generator and on the learner."""

    temperature: Annotated[float, AfterValidator(check_temperature)] = Field(default=1.0, ge=0.0, le=MAX_TEMPERATURE)
    """Divides the logits. 1 for training; 0 (greedy) only in evaluation; else vLLM allows 0.01 to 2."""
    max_completion_tokens: int = Field(default=1024, ge=1)
    """Longest completion, in tokens. Raise it when `rollout/truncated` is above a few percent."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a completion, and stay in it, such as `</answer>`. Empty: only the end-of-sequence token does. The
    engine then has to look at text while it samples, which costs a little."""


class EnvironmentConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Limits of completions that `prompts.environment` answers; see docs/environments.md."""

    max_turns: int = Field(default=8, ge=1, le=1_000)
    """Most turns of the policy in a completion. One that is not over then ends with the status `turns`."""
    max_observed_tokens: int = Field(default=1024, ge=16)
    """Tokens that all observations of a completion may have together, beside `sampling.max_completion_tokens`, which
    are the policy's. An observation is cut to what is left; with nothing left the completion ends with the status
    `length`."""
    deadline_s: float = Field(default=10.0, gt=0, le=MAX_SECONDS)
    """Seconds that an environment may take to begin, or over a turn, before its process is killed and its completion
    ends with the status `timeout`."""
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keyword arguments of an environment's class, by its name: `parameters.guess.highest = 100`; that of
    `module:Class` is the class's."""


class RolloutConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """The generation engines."""

    num_generators: int = Field(default=1, ge=1, le=10_000)
    """vLLM engines, one Ray actor each. On the CPU one for each core; on GPUs one for each group of
    `tensor_parallel_size` cards."""
    cpus_per_generator: float = Field(default=1.0, ge=0.0)
    """CPU cores that Ray reserves for each. Fractions share a core; they limit nothing."""
    threads_per_generator: int = Field(default=1, ge=1, le=1_024)
    """OpenMP threads of a generator on the CPU. Small models are fastest with 1."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=1_024)
    """GPUs of one engine. Raise it only when the model does not fit one card."""
    gpu_memory_fraction: float | None = Field(default=None, gt=0.0, lt=1.0)
    """vLLM's share of the GPU's memory, weights and KV cache together. Unset: the memory plan's figure (`rayzero
    plan`), and 0.9 where nothing is trained."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1, le=1_048_576)
    """KV cache of each engine on the CPU, GiB."""
    max_concurrent_completions: int = Field(default=256, ge=1, le=1_000_000)
    """Completions that one engine decodes at once (vLLM's max_num_seqs)."""
    max_batched_tokens: int = Field(default=8192, ge=1)
    """Tokens that one decoding step may hold, prompts included (vLLM's max_num_batched_tokens)."""
    compile: bool = False
    """torch.compile and CUDA graphs. Worth it on GPUs; on the CPU it costs a minute at the start."""
    start_timeout_s: float = Field(default=600.0, gt=0, le=MAX_SECONDS)
    """An engine that has not started by then stops the run, seconds."""
    hang_timeout_s: float = Field(default=60.0, gt=0, le=MAX_SECONDS)
    """A generator with prompts that decodes nothing, or an actor that does not answer, is replaced then; seconds."""
    max_restarts: int = Field(default=10, ge=0)
    """Generators that may be replaced in one run because they died or hang; one more stops the run."""
    stall_timeout_s: float = Field(default=300.0, gt=0, le=MAX_SECONDS)
    """The run stops when no group has finished anywhere for this long while some are in flight; seconds."""
    publish_backend: Literal["auto", "ray", "ipc", "nccl"] = "auto"
    """How weights travel: `ray` through the object store, anywhere; `ipc` within a GPU that generator and learner
    share; `nccl` between GPUs. `auto`: the fastest that the placement allows. See docs/publishing.md."""
    publish_timeout_s: float = Field(default=120.0, gt=0, le=MAX_SECONDS)
    """Deadline of each of a publish's two phases, stage and commit, seconds. One that fails is repeated once."""
    publish_bucket_mib: int = Field(default=256, ge=1, le=1_048_576)
    """Weights travel in buckets of about this size, or of one parameter where that is larger, MiB. With `ipc` the
    learner's GPU holds one bucket during a publish, with `nccl` both ends hold two."""
