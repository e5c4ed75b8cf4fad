"""RunConfig: what a recipe file says, with the command line's overrides. Nothing heavy is imported here."""

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


class Section(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """Frozen; unknown keys are refused, and numbers that are not finite."""


class EvaluationConfig(Section, frozen=True):
    """Measurements on the held-out prompts: before the first step, after the last, and between."""

    every_steps: int = Field(default=0, ge=0)
    """Also evaluate every so many steps; 0: only before and after."""
    completions_per_prompt: int = Field(default=8, ge=1, le=100_000)
    """Sampled completions of each held-out prompt; pass@k is known up to this k."""
    pass_at: tuple[PositiveInt, ...] = ()
    """Each k of pass@k, beside 1. Empty: `completions_per_prompt`."""
    temperature: Annotated[float, AfterValidator(check_temperature)] = Field(default=1.0, gt=0.0, le=MAX_TEMPERATURE)
    """Temperature of the sampled completions, at least 0.01. Greedy ones are always measured too."""
    formats: tuple[PromptFormat, ...] = ()
    """Formats to measure beside the recipe's own, such as `["one_shot", "natural"]`; each costs as much again."""
    num_prompts: int = Field(default=0, ge=0)
    """Ask only so many of the held-out prompts, the same ones every time; 0: all."""
    seed: int = 0
    """Decides which ones. Separate from the run's seed, so that runs of different seeds are asked the same."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Each k of pass@k, in order."""
        return tuple(sorted({1, *(self.pass_at or (self.completions_per_prompt,))}))

    @model_validator(mode="after")
    def _check_pass_at(self) -> Self:
        if (largest := max(self.sizes)) > self.completions_per_prompt:
            raise ValueError(
                f"pass_at holds {largest}, above completions_per_prompt = {self.completions_per_prompt}: pass@k is not "
                "known from fewer than k completions of a prompt; raise completions_per_prompt or lower k"
            )
        return self


class CheckpointConfig(Section, frozen=True):
    """What a killed run can resume from."""

    every_steps: int = Field(default=10, ge=1)
    """Save every so many steps, after the last, and when the run is asked to stop."""
    keep: int = Field(default=2, ge=1)
    """How many checkpoints stay. Two, so that one torn by a full disk leaves the other."""
    allow_changes: bool = False
    """Go on although the data, the base model or the reference have changed since the run was started; the log says
    what. For the command line: a consent is for one command, so a run's config.json does not keep it."""


class PlacementConfig(Section, frozen=True):
    """Which processes share which hardware."""

    mode: Literal["auto", "cpu", "colocated", "pods"] = "auto"
    """`cpu`: everything on cores. `colocated`: generator i and learner rank i take turns on GPU i. `pods`: each
    generator and each learner rank has GPUs of its own. `auto`: pods where GPUs are enough for that, else colocated
    where they are enough for that, else with as many pairs as there are GPUs; cpu where there is none. On a cluster
    that scales up name the mode."""
    dashboard: bool = False
    """Start Ray's dashboard with a cluster that this run starts itself."""
    wait_for_resources_s: float = Field(default=0.0, ge=0, le=MAX_SECONDS)
    """How long to wait for nodes to join a cluster that is too small, seconds. 0: stop at once."""
    start_timeout_s: float = Field(default=300.0, gt=0, le=MAX_SECONDS)
    """Deadline for the actors to get their resources, where the cluster is large enough but busy, and to start,
    seconds."""
    update_timeout_s: float = Field(default=3600.0, gt=0, le=MAX_SECONDS)
    """Deadline of one update on the learner, seconds."""
    max_learner_restarts: int = Field(default=3, ge=0)
    """How often in one run a learner that lost a rank is built anew, to go on from the last checkpoint."""


class TrackingConfig(Section, frozen=True):
    """Where metrics go, beside the run directory."""

    to: tuple[Literal["wandb", "tensorboard", "trackio", "mlflow"], ...] = ()
    """Programs that get metrics, settings, the curve, completions and the report too; docs/tracking.md. Each is an
    extra to install, works without a network, and runs beside the loop, which goes on whatever becomes of it."""
    wandb: bool = False
    """The same as `"wandb"` in `to`."""
    project: str = Field(default="rayzero", min_length=1)
    """Project or experiment there."""
    wandb_project: str | None = None
    """Project of Weights & Biases, where its name is another."""
    save_rollouts: bool = True
    """Write every prompt, completion, reward and advantage of each step, and the learner's logprobs (compressed)."""

    @property
    def programs(self) -> tuple[str, ...]:
        """The names in `to`, each once, with that of `wandb`."""
        return tuple(dict.fromkeys((*self.to, *(["wandb"] if self.wandb else []))))


class HealthConfig(Section, frozen=True):
    """When the run says that it is not learning, and if it then stops; docs/health.md lists the alarms."""

    steps: int = Field(default=0, ge=0)
    """Steps in a row that something must last before it is said. 0: as many as have 64 groups, 5 at least."""
    without_spread: float | None = Field(default=None, gt=0, le=1)
    """Share of groups without spread that are nearly all. Unset: as many as a policy has that is right once in a
    hundred, which depends on `group_size`, and 0.9 at least."""
    truncated: float = Field(default=0.5, gt=0, le=1)
    """Share of completions cut off at `sampling.max_completion_tokens` that is too many."""
    failed: float | None = Field(default=None, ge=0, le=1)
    """Share of completions that a grader may fail. Unset: a quarter of `rewards.max_failed_share`, which ends the
    run."""
    factor: float = Field(default=10.0, gt=1)
    """The entropy and the length have collapsed when so many times smaller than in the first step; the gradient and
    the logprob gap run away when so many times larger, the KL at so many times `kl_target`."""
    stop_after: int = Field(default=0, ge=0)
    """Stop after so many steps in a row from which nothing was learned, as nearly all groups were without spread: with
    a checkpoint, `final/` and exit code 3. 0: never."""


class RunConfig(Section, frozen=True):
    """One run, whole."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    """Names the run's directory. The same name again resumes the run."""
    runs_dir: str = "runs"
    """Folder of all run directories."""
    seed: int = Field(default=0, ge=0)
    """Decides sampling. Held-out problems and prompt order have their own, `prompts.seed`."""
    num_steps: int = Field(ge=0)
    """Passes of the loop: sample, score, learn, publish."""
    prompts_per_step: int = Field(ge=1, le=1_000_000)
    """Prompts sampled in one step."""
    group_size: int = Field(ge=1, le=100_000)
    """Completions of one prompt; at least 2 where advantages compare them, which they do in most presets."""
    max_staleness: int = Field(default=0, ge=0, le=8)
    """Steps that sampling may run ahead of the weights. 0: on-policy, sampling and updates take turns. 1 or 2: sampling
    goes on during the update, and new weights land between two decoding steps; not with
    `placement.mode = "colocated"`."""
    deterministic: bool = False
    """Compute on GPUs so that a run repeats bit for bit: sample by kernels that do not depend on what else is in a
    batch, and learn by kernels of a fixed order. Slower (docs/placement.md). On cores runs repeat without it."""
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
        """Longest prompt plus longest completion, and what environments say within that, tokens."""
        observed = self.environment.max_observed_tokens if self.environments else 0
        return self.prompts.max_prompt_tokens + self.sampling.max_completion_tokens + observed

    @property
    def longest_sequence(self) -> str:
        """The settings that make up `max_model_len`, for messages."""
        observed = " + environment.max_observed_tokens" if self.environments else ""
        return f"prompts.max_prompt_tokens + sampling.max_completion_tokens{observed}"

    @property
    def environments(self) -> list[str]:
        """The names of the environments that answer, each once."""
        return sorted({task.environment for task in self.prompts.tasks.values() if task.environment})

    @property
    def measured_formats(self) -> tuple[PromptFormat, ...]:
        """The formats that the run is evaluated in: the recipe's own, then those that it names."""
        return tuple(dict.fromkeys((self.prompts.format, *self.evaluation.formats)))

    @property
    def directory(self) -> Path:
        return Path(from_home(self.runs_dir)) / self.name

    @field_validator("name")
    @classmethod
    def _is_a_folder_of_its_own(cls, name: str) -> str:
        if not name.strip("."):
            raise ValueError(f"name = {name!r} is no folder of its own in runs_dir: give it a letter or a digit")
        return name

    @field_validator("runs_dir")
    @classmethod
    def _is_in_a_home_that_is_known(cls, runs_dir: str) -> str:
        from_home(runs_dir)
        return runs_dir  # as it is: `rayzero submit` means the home folder of the cluster
