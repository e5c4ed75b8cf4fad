"""Settings of prompts, sampling and generation engines. Validated without loading anything heavy."""

from __future__ import annotations

import string
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator


class CountdownConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Countdown: combine the numbers with arithmetic so that they make the target."""

    source: str = "generated"
    """`generated`, a local .jsonl or .parquet file, or a hub data set such as
    `Jiayi-Pan/Countdown-Tasks-3to4`. Files and data sets need the columns `nums` and `target`."""
    numbers_per_problem: int = Field(default=3, ge=2, le=6)
    """How many numbers a generated problem has."""
    min_number: int = Field(default=1, ge=1)
    """Smallest number of a generated problem."""
    max_number: int = Field(default=10, ge=1)
    """Largest number of a generated problem."""
    min_target: int = Field(default=1, ge=0)
    """Smallest target of a generated problem."""
    max_target: int = Field(default=40, ge=1)
    """Largest target of a generated problem."""
    operators: str = "+-*"
    """Operators with which a generated problem must be solvable, out of `+-*/` (division exact)."""
    max_intermediate: int = Field(default=60, ge=1)
    """A generated problem is solvable with every intermediate result within 0 and this."""
    must_use_all: bool = True
    """Every number exactly once (true), or each at most once (false)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_number > self.max_number:
            raise ValueError(
                f"min_number = {self.min_number} is above max_number = {self.max_number}: lower it or raise max_number"
            )
        if self.min_target > self.max_target:
            raise ValueError(
                f"min_target = {self.min_target} is above max_target = {self.max_target}: lower it or raise max_target"
            )
        if unknown := set(self.operators) - set("+-*/"):
            raise ValueError(f"operators = {self.operators!r} holds {sorted(unknown)}: use only + - * /")
        return self


class PeriodCountConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Period count: go on after the opening of a sentence, and be paid for every full stop.

    A check of the whole loop that needs no data, not a task of reasoning. The sentence lengths are those of the warm
    start's traces.
    """

    max_adjectives: int = Field(default=2, ge=1, le=3)
    """An opening is a determiner, 1 to this many adjectives, and a noun. With 2 there are 5,760 openings."""
    min_words: int = Field(default=4, ge=3)
    """Shortest sentence of a trace, words; a long opening makes it longer."""
    max_words: int = Field(default=12, ge=4)
    """Longest sentence of a trace, words. `sampling.max_completion_tokens` should hold `max_sentences` of them."""
    max_sentences: int = Field(default=4, ge=1)
    """A trace has 1 to this many sentences, each number as often: what is left to gain is the rest of the limit."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        shortest = max(self.min_words, self.max_adjectives + 3)
        if self.max_words < shortest:
            raise ValueError(
                f"max_words = {self.max_words} is below {shortest}, which min_words and max_adjectives + 3 ask for: raise it"
            )
        return self


TEMPLATE_FIELDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "countdown": (("target",), ("numbers", "numbers_spaced")),
    "period_count": (("opening",),),
}
"""Fields that each task offers to the template, which must show one of every group."""


class PromptsConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """What is asked, and in which words."""

    task: Literal["countdown", "period_count"] = "countdown"
    """Name of the task: `rollout/prompts/<task>.py` asks, `rewards/<task>.py` marks."""
    template: str = (
        "Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic "
        "operations (+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. "
        "And return the final equation in <answer> </answer> tags, for example <answer>(1 + 2) / (3 * 5)</answer>."
    )
    """The question. Named fields come from the task; Countdown has {numbers} (`[3, 7, 9]`), {numbers_spaced}
    (`3 7 9`) and {target}; Period count has {opening} (`the old cat`)."""
    system: str = ""
    """System message, with `chat` only. Empty: none."""
    chat: bool = True
    """Wrap the question in the tokenizer's chat template (true), or use its bare text (false: base models)."""
    assistant_prefix: str = ""
    """How the completion already begins, in R1-Zero style: `Let me solve this step by step.\\n<think>`."""
    max_prompt_tokens: int = Field(default=256, ge=1)
    """Longest prompt, in tokens. A longer one is refused with its id, never cut."""
    num_held_out: int = Field(default=256, ge=1)
    """Problems kept aside for evaluation; none of them is trained on."""
    seed: int = 0
    """Decides the held-out problems and the order of the others. Separate from the run's seed, so that
    runs of different seeds are compared on the same held-out problems."""
    countdown: CountdownConfig = CountdownConfig()
    period_count: PeriodCountConfig = PeriodCountConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        fields = {name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None}
        groups = TEMPLATE_FIELDS[self.task]
        known = {name for group in groups for name in group}
        if unknown := fields - known:
            raise ValueError(f"template asks for the fields {sorted(unknown)}: {self.task} has {sorted(known)}")
        if not all(fields & set(group) for group in groups):
            needed = ", and ".join(" or ".join(f"{{{name}}}" for name in group) for group in groups)
            raise ValueError(f"template must show {needed}, or nobody can answer it")
        if self.system and not self.chat:
            raise ValueError("system is set but chat = false shows no system message: put its text in template")
        return self


class TracesConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Countdown's synthetic search traces, which a warm start imitates; see rollout/prompts/countdown_traces.py."""

    give_up_rate: float = Field(default=0.75, ge=0, le=1)
    """Share of impatient traces. They leave reinforcement learning something to find: persistence."""
    give_up_within: int = Field(default=2, ge=1)
    """Longest patience of an impatient trace, in lines."""
    oversight_rate: float = Field(default=0.15, ge=0, le=1)
    """Share of the other traces that overlook every solution. They show how a fruitless search ends."""
    max_lines: int = Field(default=9, ge=1)
    """Patience of the other traces, in lines. Nine lines try everything that three numbers can make."""
    two_number_rate: float = Field(default=0.33, ge=0, le=1)
    """Share of the traces about two numbers only, which teach the arithmetic."""


class SamplingConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """How tokens are drawn. Logprobs are those of this distribution, on the generator and on the learner."""

    temperature: float = Field(default=1.0, ge=0.0, le=2.0)
    """Divides the logits. 1 for training; 0 (greedy) only in evaluation; vLLM allows 2 at most."""
    max_completion_tokens: int = Field(default=1024, ge=1)
    """Longest completion, in tokens. Raise it when `rollout/truncated` is above a few percent."""


class RolloutConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """The generation engines."""

    num_generators: int = Field(default=1, ge=1)
    """vLLM engines, one Ray actor each. On the CPU one for each core; on GPUs one for each group of
    `tensor_parallel_size` cards."""
    cpus_per_generator: float = Field(default=1.0, ge=0.0)
    """CPU cores that Ray reserves for each. Fractions share a core; they limit nothing."""
    threads_per_generator: int = Field(default=1, ge=1)
    """OpenMP threads of a generator on the CPU. Small models are fastest with 1."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs of one engine. Raise it only when the model does not fit one card."""
    gpu_memory_fraction: float = Field(default=0.4, gt=0.0, lt=1.0)
    """vLLM's share of the GPU's memory, weights and KV cache together."""
    cpu_kv_cache_gib: int = Field(default=1, ge=1)
    """KV cache of each engine on the CPU, GiB."""
    max_concurrent_completions: int = Field(default=256, ge=1)
    """Completions that one engine decodes at once (vLLM's max_num_seqs)."""
    max_batched_tokens: int = Field(default=8192, ge=1)
    """Tokens that one decoding step may hold, prompts included (vLLM's max_num_batched_tokens)."""
    compile: bool = False
    """torch.compile and CUDA graphs. Worth it on GPUs; on the CPU it costs a minute at the start."""
    start_timeout_s: float = Field(default=600.0, gt=0)
    """An engine that has not started by then stops the run, seconds."""
    stall_timeout_s: float = Field(default=300.0, gt=0)
    """No group finished anywhere for this long while some are in flight: the run stops and says so, seconds."""
    publish_timeout_s: float = Field(default=120.0, gt=0)
    """Deadline of publishing one version to all generators, seconds."""
    publish_bucket_mib: int = Field(default=256, ge=1)
    """Weights travel in pieces of about this size, MiB."""
