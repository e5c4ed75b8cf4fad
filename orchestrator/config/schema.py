"""RunConfig: the settings of a recipe file with the command line's overrides. Imports no slow libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, PositiveInt, field_validator, model_validator

from learner.config import LearnerConfig, ModelConfig, WarmStartConfig
from rewards.config import RewardsConfig
from rollout.config import MAX_SECONDS, EnvironmentConfig, RolloutConfig, SamplingConfig, TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.types.paths import from_home
from rollout.types.prompts import PromptFormat
from rollout.types.sampling import MAX_TEMPERATURE, check_temperature

TrackerName = Literal["wandb", "tensorboard", "trackio", "mlflow"]
"""A module of orchestrator/records/trackers and an extra in pyproject.toml each; see PACKAGES in build.py there."""


class Section(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """A frozen section of settings, which refuses unknown keys and numbers that are not finite."""


class EvaluationConfig(Section, frozen=True):
    """Evaluations on the held-out prompts: before the first step, after the last, and in between."""

    every_steps: int = Field(default=0, ge=0)
    """Also evaluate after every this many steps; 0: only before and after the run."""
    completions_per_prompt: int = Field(default=8, ge=1, le=100_000)
    """Sampled completions of each held-out prompt; pass@k is available up to this k."""
    pass_at: tuple[PositiveInt, ...] = ()
    """Each k of pass@k, in addition to 1. Empty: `completions_per_prompt`."""
    temperature: Annotated[float, AfterValidator(check_temperature)] = Field(default=1.0, gt=0.0, le=MAX_TEMPERATURE)
    """Temperature of the sampled completions, at least 0.01. Greedy completions are always measured too."""
    formats: tuple[PromptFormat, ...] = ()
    """Formats to measure in addition to the recipe's own, such as `["one_shot", "natural"]`. Each costs another
    evaluation."""
    num_prompts: int = Field(default=0, ge=0)
    """Use only this number of the held-out prompts, always the same ones; 0: all."""
    seed: int = 0
    """Selects these prompts. It is separate from the run's seed, so that runs with different seeds use the same
    prompts."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Each k of pass@k, in order."""
        return tuple(sorted({1, *(self.pass_at or (self.completions_per_prompt,))}))

    @model_validator(mode="after")
    def _check_pass_at(self) -> Self:
        if (largest := max(self.sizes)) > self.completions_per_prompt:
            raise ValueError(
                f"pass_at holds {largest}, above completions_per_prompt = {self.completions_per_prompt}: pass@k is not "
                "available from fewer than k completions of a prompt; raise completions_per_prompt or lower k"
            )
        return self


class CheckpointConfig(Section, frozen=True):
    """Checkpoints, from which a killed run resumes."""

    every_steps: int = Field(default=10, ge=1)
    """Save after every this many steps, after the last step, and when the run is asked to stop."""
    keep: int = Field(default=2, ge=1)
    """Number of checkpoints to keep. Two, so that one is left if a full disk damages the other."""
    allow_changes: bool = False
    """Resume although the data, the base model or the reference have changed since the start of the run; the log lists
    the changes. Use it on the command line: it applies to one command and is not stored in the run's config.json."""


class PlacementConfig(Section, frozen=True):
    """Which processes share which hardware."""

    mode: Literal["auto", "cpu", "colocated", "pods"] = "auto"
    """`cpu`: everything on the CPU. `colocated`: generator i and learner rank i take turns on GPU i. `pods`: each
    generator and each learner rank has its own GPUs. `auto`: pods if there are enough GPUs, else colocated if there are
    enough for that, else colocated with as many pairs as there are GPUs; cpu without GPUs. On a cluster that scales up
    set the mode."""
    dashboard: bool = False
    """Start Ray's dashboard if this run starts its own cluster."""
    wait_for_resources_s: float = Field(default=0.0, ge=0, le=MAX_SECONDS)
    """Seconds to wait for nodes to join a cluster that is too small. 0: stop at once."""
    start_timeout_s: float = Field(default=300.0, gt=0, le=MAX_SECONDS)
    """Deadline in seconds for the actors to get their resources on a cluster that is large enough but busy, and to
    start."""
    update_timeout_s: float = Field(default=3600.0, gt=0, le=MAX_SECONDS)
    """Deadline in seconds of one update of the learner."""
    max_learner_restarts: int = Field(default=3, ge=0)
    """How often in one run the learner is restarted from the last checkpoint after it lost a rank."""


class TrackingConfig(Section, frozen=True):
    """Where metrics go in addition to the run directory."""

    to: tuple[TrackerName, ...] = ()
    """Trackers that also get metrics, settings, the curve, completions and the report; see docs/tracking.md. Each needs
    an extra to be installed, works without a network, and runs in its own process, so that the loop continues if it
    fails."""
    wandb: bool = False
    """The same as `"wandb"` in `to`."""
    project: str = Field(default="rayzero", min_length=1)
    """Project or experiment in the tracker."""
    wandb_project: str | None = None
    """Project of Weights & Biases, if it has another name."""
    save_rollouts: bool = True
    """Write every prompt, completion, reward and advantage of each step, and the learner's logprobs (compressed)."""

    @property
    def programs(self) -> tuple[str, ...]:
        """The names in `to`, each once, and `wandb` if it is switched on."""
        return tuple(dict.fromkeys((*self.to, *(["wandb"] if self.wandb else []))))


class HealthConfig(Section, frozen=True):
    """When the run reports that it is not learning, and whether it then stops; docs/health.md lists the alarms."""

    steps: int = Field(default=0, ge=0)
    """Number of steps in a row that a condition must last before its alarm is raised. 0: as many as contain 64 groups,
    at least 5."""
    without_spread: float | None = Field(default=None, gt=0, le=1)
    """Share of groups without spread from which an alarm is raised. Unset: the share for a policy that is right once in
    a hundred completions, which depends on `group_size`, at least 0.9."""
    truncated: float = Field(default=0.5, gt=0, le=1)
    """Share of completions truncated at `sampling.max_completion_tokens` from which an alarm is raised."""
    failed: float | None = Field(default=None, ge=0, le=1)
    """Share of completions with a failed grader from which an alarm is raised. Unset: a quarter of
    `rewards.max_failed_share`, which ends the run."""
    factor: float = Field(default=10.0, gt=1)
    """Factor of the alarms for collapse and runaway: entropy and length this many times smaller than in the first step,
    the gradient norm and the logprob gap this many times larger, the KL this many times `kl_target`."""
    stop_after: int = Field(default=0, ge=0)
    """Stop after this number of steps in a row from which nothing was learned because nearly all groups had no spread:
    with a checkpoint, `final/` and exit code 3. 0: never."""


class RunConfig(Section, frozen=True):
    """All settings of a run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Name of the run's directory. Starting the same name again resumes the run."""
    runs_dir: str = "runs"
    """Folder of all run directories."""
    seed: int = Field(default=0, ge=0)
    """Seed of sampling. Held-out problems and prompt order have their own, `prompts.seed`."""
    num_steps: int = Field(ge=0)
    """Number of steps: passes of the loop sample, update, publish, record."""
    prompts_per_step: int = Field(ge=1, le=1_000_000)
    """Prompts sampled in one step."""
    group_size: int = Field(ge=1, le=100_000)
    """Completions of one prompt; at least 2 if advantages compare them, as in most presets."""
    max_staleness: int = Field(default=0, ge=0, le=8)
    """Number of steps that sampling may run ahead of the weights. 0: on-policy, sampling and updates take turns. 1 or
    2: sampling continues during the update, and new weights are loaded between two decoding steps; not possible with
    `placement.mode = "colocated"`."""
    deterministic: bool = False
    """Make a run on GPUs reproducible bit for bit: sample with kernels that do not depend on the rest of a batch, and
    learn with kernels of a fixed order. Slower (docs/placement.md). Runs on the CPU are reproducible without it."""
    model: ModelConfig
    warm_start: WarmStartConfig = WarmStartConfig()
    traces: TracesConfig = TracesConfig()
    prompts: PromptsConfig = PromptsConfig()
    environment: EnvironmentConfig = EnvironmentConfig()
    sampling: SamplingConfig = SamplingConfig()
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardsConfig = RewardsConfig()
    learner: LearnerConfig = LearnerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    placement: PlacementConfig = PlacementConfig()
    tracking: TrackingConfig = TrackingConfig()
    health: HealthConfig = HealthConfig()

    @property
    def completions_per_step(self) -> int:
        return self.prompts_per_step * self.group_size

    @property
    def max_model_len(self) -> int:
        """Longest prompt, plus longest completion, plus longest observations, in tokens."""
        observed = self.environment.max_observed_tokens if self.environments else 0
        return self.prompts.max_prompt_tokens + self.sampling.max_completion_tokens + observed

    @property
    def longest_sequence(self) -> str:
        """The settings that make up `max_model_len`, for messages."""
        observed = " + environment.max_observed_tokens" if self.environments else ""
        return f"prompts.max_prompt_tokens + sampling.max_completion_tokens{observed}"

    @property
    def environments(self) -> list[str]:
        """The names of the environments, each once."""
        return sorted({task.environment for task in self.prompts.tasks.values() if task.environment})

    @property
    def measured_formats(self) -> tuple[PromptFormat, ...]:
        """The formats of the evaluations: the recipe's own, then those in `evaluation.formats`."""
        return tuple(dict.fromkeys((self.prompts.format, *self.evaluation.formats)))

    @property
    def directory(self) -> Path:
        return Path(from_home(self.runs_dir)) / self.name

    @field_validator("name")
    @classmethod
    def _is_a_folder_of_its_own(cls, name: str) -> str:
        if not name.strip("."):
            raise ValueError(f"name = {name!r} does not name a folder in runs_dir: use at least one letter or digit")
        return name

    @field_validator("runs_dir")
    @classmethod
    def _is_in_a_home_that_is_known(cls, runs_dir: str) -> str:
        from_home(runs_dir)
        return runs_dir  # unchanged, because with `rayzero submit` `~` is the home folder on the cluster
