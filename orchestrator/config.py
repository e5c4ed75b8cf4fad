"""RunConfig: what a recipe file says, with the command line's overrides, checked before anything heavy loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationInfo, model_validator

from learner.config import LearnerConfig, ModelConfig, WarmStartConfig, check_together
from rewards.config import RewardsConfig
from rollout.config import RolloutConfig, SamplingConfig, TracesConfig
from rollout.prompts.config import PromptsConfig, QuestionsConfig

SUPERVISED_ONLY = {"supervised_only": True}
"""Context of validating a recipe for `rayzero sft`."""


class Settings(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True):
    """Frozen, and unknown keys are refused."""


class EvaluationConfig(Settings, frozen=True):
    """Measurements on the held-out prompts: before the first step, after the last, and between."""

    every_steps: int = Field(default=0, ge=0)
    """Also evaluate every so many steps; 0: only before and after."""
    completions_per_prompt: int = Field(default=8, ge=1)
    """Sampled completions of each held-out prompt; pass@k is known up to this k."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Temperature of the sampled completions. Greedy ones are always measured too."""


class CheckpointConfig(Settings, frozen=True):
    """What a killed run can resume from."""

    every_steps: int = Field(default=10, ge=1)
    """Save every so many steps, after the last, and when the run is asked to stop."""
    keep: int = Field(default=2, ge=1)
    """How many checkpoints stay. Two, so that one torn by a full disk leaves the other."""


class PlacementConfig(Settings, frozen=True):
    """Which processes share which hardware."""

    mode: Literal["auto", "cpu", "colocated"] = "auto"
    """`cpu`: everything on cores. `colocated`: generator and learner take turns on the same GPU. `auto`: colocated where a
    GPU is seen, else cpu."""
    dashboard: bool = False
    """Start Ray's dashboard with a cluster that this run starts itself."""
    start_timeout_s: float = Field(default=300.0, gt=0)
    """Deadline for the actors to get their resources and to start, seconds."""
    update_timeout_s: float = Field(default=3600.0, gt=0)
    """Deadline of one update on the learner, seconds."""


class TrackingConfig(Settings, frozen=True):
    """Where metrics go, beside the run directory."""

    wandb: bool = False
    """Log to Weights & Biases; with WANDB_MODE=offline nothing leaves the machine."""
    wandb_project: str = "rayzero"
    """Project there."""
    save_rollouts: bool = True
    """Write every prompt, completion, reward and advantage of each step (compressed)."""


class RunConfig(Settings, frozen=True):
    """One run, whole."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Names the run's directory. The same name again resumes the run."""
    runs_dir: str = "runs"
    """Folder of all run directories."""
    seed: int = Field(default=0, ge=0)
    """Decides sampling. Held-out problems and prompt order have their own, `prompts.seed`."""
    num_steps: int = Field(ge=0)
    """Passes of the loop: sample, score, learn, publish."""
    prompts_per_step: int = Field(ge=1)
    """Prompts sampled in one step."""
    group_size: int = Field(ge=1)
    """Completions of one prompt; at least 2 where advantages compare them, which they do in most presets."""
    max_staleness: int = Field(default=0, ge=0, le=0)
    """Steps that sampling may run ahead of the weights. 0, on-policy, is all that there is yet."""
    model: ModelConfig
    warm_start: WarmStartConfig = WarmStartConfig()
    traces: TracesConfig = TracesConfig()
    prompts: PromptsConfig = PromptsConfig()
    sampling: SamplingConfig = SamplingConfig()
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardsConfig = RewardsConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    placement: PlacementConfig = PlacementConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def completions_per_step(self) -> int:
        return self.prompts_per_step * self.group_size

    @property
    def max_model_len(self) -> int:
        """Longest prompt plus longest completion, tokens."""
        return self.prompts.max_prompt_tokens + self.sampling.max_completion_tokens

    @property
    def directory(self) -> Path:
        return Path(self.runs_dir) / self.name

    @model_validator(mode="after")
    def _check_across_sections(self, info: ValidationInfo) -> Self:
        check_together(self.learner, self.model)
        # `rayzero sft` neither samples nor scores: what only those need must not stop it.
        samples = info.context != SUPERVISED_ONLY
        for message in self._warm_start_misfits() + (self._misfits() if samples else []):
            raise ValueError(message)
        return self

    def _warm_start_misfits(self) -> list[str]:
        if self.warm_start.num_steps == 0 or self.warm_start.data is not None:
            return []
        if self.model.build is None:
            return [
                f"warm_start.num_steps = {self.warm_start.num_steps} with model.path: synthetic traces are for a policy from "
                "model.build; set warm_start.data to a JSONL file of prompt and completion, or warm_start.num_steps = 0"
            ]
        countdown = self.prompts.countdown
        is_beyond_traces = countdown.source != "generated" or countdown.numbers_per_problem > 3
        if self.prompts.task == "countdown" and is_beyond_traces:
            return [
                f"prompts.countdown has source = {countdown.source!r} and numbers_per_problem = "
                f"{countdown.numbers_per_problem}: the warm start's traces are about generated problems of at most three "
                "numbers; change them or set warm_start.num_steps = 0"
            ]
        return []

    def _misfits(self) -> list[str]:
        found = []
        if self.sampling.temperature == 0:
            found.append(
                "sampling.temperature = 0: every completion of a group would be the same and nothing could be learned; "
                "set it above 0, usually to 1"
            )
        if self.prompts_per_step % self.learner.updates_per_step:
            found.append(
                f"learner.updates_per_step = {self.learner.updates_per_step} does not divide prompts_per_step = "
                f"{self.prompts_per_step}: each optimizer step trains on as many groups; set it to one of "
                f"{divisors(self.prompts_per_step)}"
            )
        algorithm = self.learner.algorithm
        if self.group_size == 1 and algorithm.needs_groups:
            found.append(
                f'group_size = 1 with learner.algorithm.baseline = "{algorithm.baseline}", which compares the completions of '
                "a prompt: every advantage would be 0; set group_size to 2 at least, 8 is usual"
            )
        if algorithm.overlong_buffer_tokens >= self.sampling.max_completion_tokens:
            found.append(
                f"learner.algorithm.overlong_buffer_tokens = {algorithm.overlong_buffer_tokens} leaves nothing of "
                f"sampling.max_completion_tokens = {self.sampling.max_completion_tokens} unpunished: lower it"
            )
        if self.max_model_len > self.learner.max_tokens_per_microbatch:
            found.append(
                f"learner.max_tokens_per_microbatch = {self.learner.max_tokens_per_microbatch} does not hold the longest "
                f"sequence, prompts.max_prompt_tokens + sampling.max_completion_tokens = {self.max_model_len}: raise it"
            )
        build = self.model.build
        if build is not None and self.max_model_len > build.max_position_embeddings:
            found.append(
                f"model.build.max_position_embeddings = {build.max_position_embeddings} is below "
                f"prompts.max_prompt_tokens + sampling.max_completion_tokens = {self.max_model_len}: raise it"
            )
        if build is not None and self.prompts.chat:
            found.append(
                "prompts.chat = true with model.build: a built tokenizer has no chat template; set it to false"
            )
        largest = max((largest_integer(questions) for questions in self.prompts.kinds.values()), default=0)
        if build is not None and largest > build.max_integer:
            found.append(
                f"model.build.max_integer = {build.max_integer}: the tokenizer has no token for {largest}, which "
                "prompts.countdown's max_number, max_target or max_intermediate allows; raise it"
            )
        if self.learner.num_ranks > 1 and self.placement.mode == "colocated":
            found.append(
                f'learner.num_ranks = {self.learner.num_ranks} with placement.mode = "colocated": one GPU is shared by '
                "one learner and one generator; set learner.num_ranks = 1"
            )
        return found


def largest_integer(questions: QuestionsConfig) -> int:
    """The largest that a generated Countdown problem or its solution holds; 0 where nothing is known about them."""
    countdown = questions.countdown
    if questions.task != "countdown" or countdown.source != "generated":
        return 0
    return max(countdown.max_number, countdown.max_target, countdown.max_intermediate)


def divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def default_num_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
