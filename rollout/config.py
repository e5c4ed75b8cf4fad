"""Settings of traces, sampling and generation engines. Validating them loads nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from rollout.types.publishing import TransportName
from rollout.types.sampling import MAX_TEMPERATURE, check_temperature

MAX_SECONDS = 1e7
"""Longest deadline, seconds: 116 days. Timers overflow at much more."""


class TracesConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Synthetic traces for a warm start, imperfect on purpose; see rollout/supervised/countdown.py.

    The first two also apply to the traces of reasoning_gym and word_problems; the others only to Countdown's.
    """

    give_up_rate: float = Field(default=0.75, ge=0, le=1)
    """Share of the traces that give up early. They leave something for reinforcement learning to improve:
    persistence."""
    give_up_within: int = Field(default=2, ge=1, le=1_000)
    """Most lines of a trace that gives up early."""
    oversight_rate: float = Field(default=0.15, ge=0, le=1)
    """Share of the other traces that miss every solution. They show how an unsuccessful search ends."""
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
    """Texts that end a completion and stay in it, such as `</answer>`. Empty: only the end-of-sequence token ends it.
    With stop texts the engine decodes text while it samples, which costs a little time."""


class EnvironmentConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Limits of completions with an environment (`prompts.environment`); see docs/environments.md."""

    max_turns: int = Field(default=8, ge=1, le=1_000)
    """Largest number of the policy's turns in a completion. A completion that is not over by then ends with the status
    `turns`."""
    max_observed_tokens: int = Field(default=1024, ge=16)
    """Largest number of tokens of all observations of a completion together; `sampling.max_completion_tokens` limits
    the policy's own tokens. An observation is cut to what is left; with nothing left the completion ends with the
    status `length`."""
    deadline_s: float = Field(default=10.0, gt=0, le=MAX_SECONDS)
    """Seconds that an environment may take to start, or to answer a turn, before its process is killed and its
    completion ends with the status `timeout`."""
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Keyword arguments of an environment's class, by its name: `parameters.guess.highest = 100`. For `module:Class`
    the name is the class's."""


class RolloutConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """The generation engines."""

    num_generators: int = Field(default=1, ge=1, le=10_000)
    """Number of vLLM engines, one Ray actor each. On the CPU use one per core; on GPUs one per `tensor_parallel_size`
    cards."""
    cpus_per_generator: float = Field(default=1.0, ge=0.0)
    """CPU cores that Ray reserves for each generator. Fractions share a core. It is a reservation, not a limit."""
    threads_per_generator: int = Field(default=1, ge=1, le=1_024)
    """OpenMP threads of a generator on the CPU. Small models are fastest with 1."""
    tensor_parallel_size: int = Field(default=1, ge=1, le=1_024)
    """GPUs of one engine. Raise it only when the model does not fit one card."""
    gpu_memory_fraction: float | None = Field(default=None, gt=0.0, lt=1.0)
    """vLLM's share of the GPU's memory, for weights and KV cache together. Unset: the memory plan's value (`rayzero
    plan`), or 0.9 if nothing is trained."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1, le=1_048_576)
    """KV cache of each engine on the CPU, GiB."""
    max_concurrent_completions: int = Field(default=256, ge=1, le=1_000_000)
    """Completions that one engine decodes at once (vLLM's max_num_seqs)."""
    max_batched_tokens: int = Field(default=8192, ge=1)
    """Largest number of tokens in one decoding step, prompts included (vLLM's max_num_batched_tokens)."""
    compile: bool = False
    """Use torch.compile and CUDA graphs. Useful on GPUs; on the CPU it costs a minute at the start."""
    start_timeout_s: float = Field(default=600.0, gt=0, le=MAX_SECONDS)
    """Seconds after which an engine that has not started stops the run."""
    hang_timeout_s: float = Field(default=60.0, gt=0, le=MAX_SECONDS)
    """Seconds after which a generator that has prompts and decodes nothing, or an actor that does not answer, is
    replaced."""
    max_restarts: int = Field(default=10, ge=0)
    """Largest number of generators that are replaced in one run because they died or hung; one more stops the run."""
    stall_timeout_s: float = Field(default=300.0, gt=0, le=MAX_SECONDS)
    """Seconds without any finished group, while some are in flight, after which the run stops."""
    publish_backend: Literal["auto", TransportName] = "auto"
    """How weights travel: `ray` through the object store, anywhere; `ipc` within a GPU that generator and learner
    share; `nccl` between GPUs. `auto`: the fastest one that the placement allows. See docs/publishing.md."""
    publish_timeout_s: float = Field(default=120.0, gt=0, le=MAX_SECONDS)
    """Deadline in seconds of each of a publish's two phases, stage and commit. A phase that fails is repeated once."""
    publish_bucket_mib: int = Field(default=256, ge=1, le=1_048_576)
    """Size in MiB of the buckets in which weights travel, approximately; a larger parameter has a bucket of its own.
    With `ipc` the learner's GPU holds one bucket during a publish, with `nccl` both ends hold two."""
