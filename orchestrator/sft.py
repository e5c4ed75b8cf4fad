"""`rayzero sft`: the supervised training of a recipe as a separate run, which resumes like any other run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console

from orchestrator.base_model import base_model, export_whole, load_tokenizer
from orchestrator.cluster.layout import SUPERVISED
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.shared_folders import check_folders
from orchestrator.command import SUPERVISED_STATE, Command, Ending, log_peak_memory
from orchestrator.config.precision import slow_bfloat16
from orchestrator.config.recipe import ConfigError
from orchestrator.config.resolve import resolve
from orchestrator.config.schema import RunConfig
from orchestrator.fleet.learner_group import LearnerGroup
from orchestrator.interrupt import Interrupt
from orchestrator.plan.run_plan import knobs, model_line, optimizer_settings
from orchestrator.records.checkpoints import Checkpoint
from orchestrator.records.origin.fingerprints import BASE, Fingerprints, check_changes
from orchestrator.records.origin.model_files import model_files
from orchestrator.records.trackers.base import Tracker
from orchestrator.records.trackers.build import build_trackers
from orchestrator.warm_start import check_data, fit, progress, start_supervised, supervised_examples
from rollout.prompts.entry_fingerprints import fingerprints
from rollout.prompts.mixture import Mixture
from rollout.supervised.examples import FORMAT, PairExamples, TraceExamples
from rollout.supervised.pairs import digest_of_file

logger = logging.getLogger(__name__)


def run_supervised(config: RunConfig, console: Console) -> Ending:
    """Train on the recipe's examples, or resume."""
    if config.warm_start.num_steps == 0:
        raise ConfigError(
            "warm_start.num_steps = 0: there is nothing to train; set it to the number of optimizer steps"
        )
    return SupervisedCommand(config, console).run()


@dataclass(frozen=True, slots=True)
class SupervisedInputs:
    """The inputs of a supervised run."""

    base: str
    """Folder or hub name of the policy before any training."""
    examples: PairExamples | TraceExamples


class SupervisedCommand(Command[SupervisedInputs]):
    """Supervised training, which needs only a learner."""

    name = "sft"
    steps_key = "warm_start.num_steps"

    @property
    def num_steps(self) -> int:
        return self.config.warm_start.num_steps

    def plan(self) -> list[tuple[str, str]]:
        return plan(self.config)

    def how_to_continue(self) -> str:
        name = self.config.name
        return f"start another one from its model: name={name}-2 model.path={self.directory.final}"

    def prepare(self, latest: Checkpoint | None) -> SupervisedInputs:
        check_data(self.config)
        base = base_model(self.config)
        problems = held_out_problems(self.config) if state_format(latest) > 1 else None
        examples = supervised_examples(
            self.config, base, load_tokenizer(base), problems.questions if problems is not None else None
        )
        found = fingerprints(self.config.prompts, problems) if problems is not None else {}
        if isinstance(examples, PairExamples):
            found["warm_start.data"] = examples.fingerprint
        self._refuse_other_pairs(latest)
        self.check_fingerprints(Fingerprints(found, {BASE: model_files(base)}), latest)
        if isinstance(examples, PairExamples):
            self.console.print(f"{len(examples)} pairs in {self.config.warm_start.data}", highlight=False, markup=False)
        return SupervisedInputs(base, examples)

    def _refuse_other_pairs(self, latest: Checkpoint | None) -> None:
        """Refuse to resume if the file of pairs has changed. Earlier versions stored only one hash of the file."""
        data, before = self.config.warm_start.data, latest.prompts[SUPERVISED_STATE].get("data") if latest else None
        if data is not None and before not in (None, digest_of_file(data)):
            check_changes(
                [f"warm_start.data = {data!r}"],
                f"the run {self.config.name!r} would continue with other pairs than it was started with",
                is_allowed=self.config.checkpoint.allow_changes,
            )

    def train(self, inputs: SupervisedInputs, latest: Checkpoint | None, interrupt: Interrupt) -> Ending:
        """Start the learner, train from its latest checkpoint on, and export the model.

        Raises PlacementError if the cluster is too small, before anything is started.
        """
        with Placement.of(self.config, SUPERVISED) as placement:
            gpu_gib, rank_cores = placement.gpu_gib, placement.rank_cores
            run = resolve(self.config, placement.layout, inputs.base, gpu_gib, rank_cores=rank_cores)
            check_folders(placement, inputs.base, {"runs_dir": self.directory.path})
            placement.await_memory(0.0, shares_buffers=False)
            learner = LearnerGroup(run, placement)
            tracker = build_trackers(self.config, self.directory)
            try:
                interrupt.begin()
                start_supervised(learner, self.config.model)
                if self._persist(learner, inputs, tracker, interrupt) < self.num_steps:
                    return Ending.INTERRUPTED
                log_peak_memory(learner)
                return Ending.COMPLETE
            finally:
                tracker.close()
                learner.close()

    def _persist(self, learner: LearnerGroup, inputs: SupervisedInputs, tracker: Tracker, interrupt: Interrupt) -> int:
        """Train from the latest checkpoint on, and export. If the learner is lost, do the same again."""
        beginning = inputs.examples.state()

        def attempt() -> int:
            last_step = restore(self.checkpoints.verify_latest(), learner, inputs)
            last_step = self._fit(learner, inputs, tracker, interrupt, last_step)
            if last_step == self.num_steps:
                export_whole(learner, self.directory.final, last_step)
            return last_step

        def roll_back() -> None:
            latest = self.checkpoints.verify_latest()
            logger.warning("training goes on after step %d", latest.step if latest else 0)
            self.directory.truncate_after(latest.step if latest else -1)
            inputs.examples.restore(beginning)

        return learner.persist(attempt, roll_back)

    def _fit(
        self, learner: LearnerGroup, inputs: SupervisedInputs, tracker: Tracker, interrupt: Interrupt, last_step: int
    ) -> int:
        with progress(self.console, "sft", self.num_steps, last_step) as show:

            def after_step(step: int, metrics: Mapping[str, float], is_leaving: bool) -> None:
                show(step, metrics)
                tracker.log(step, metrics)
                if is_leaving or step % self.config.checkpoint.every_steps == 0:
                    self.checkpoints.save(step, learner, {SUPERVISED_STATE: inputs.examples.state()}, tracker.flush)

            return fit(learner, inputs.examples, self.config.warm_start, interrupt, after_step, last_step)

    def report(self, seconds: float) -> None:
        final = self.directory.final
        files = "report.html, metrics.jsonl" if self.write_report() else "metrics.jsonl"
        message = f"the trained model is in {final}, next to {files} and log.txt"
        self.console.print(message, highlight=False, markup=False)
        self.console.print(f"train it on:  rayzero train RECIPE model.path={final}", highlight=False, markup=False)


def held_out_problems(config: RunConfig) -> Mixture | None:
    """Return the problems of a later `rayzero train` with the recipe; None if the recipe has none."""
    if config.warm_start.data is not None and "prompts" not in config.model_fields_set:
        return None
    return Mixture(config.prompts)


def state_format(latest: Checkpoint | None) -> int:
    """Return the version of the examples' state in a checkpoint; without a checkpoint, the current version."""
    return FORMAT if latest is None else int(latest.prompts[SUPERVISED_STATE].get("format", 1))


def restore(latest: Checkpoint | None, learner: LearnerGroup, inputs: SupervisedInputs) -> int:
    """Load a checkpoint. Return its step; 0 without a checkpoint."""
    if latest is None:
        return 0
    inputs.examples.restore(latest.prompts[SUPERVISED_STATE])
    learner.load(latest.learner_folder)
    return latest.step


def plan(config: RunConfig) -> list[tuple[str, str]]:
    """Return titles and lines of the plan."""
    warm, learner = config.warm_start, config.learner
    lora = config.model.lora
    slow = slow_bfloat16(config.model.dtype, config.placement.mode)
    return [
        ("policy", model_line(config)),
        ("examples", warm.data or f"synthetic traces of {config.prompts.task}"),
        (
            "batch",
            f"{warm.num_steps} optimizer steps × {warm.sequences_per_step} examples, microbatches of "
            f"{learner.max_tokens_per_microbatch} tokens; a checkpoint every {config.checkpoint.every_steps} steps",
        ),
        ("trains", f"a LoRA: {knobs(lora.model_dump())}" if lora else "all the weights"),
        ("actors", f"{learner.num_ranks} × learner ({learner.cpus_per_rank:g} CPU, ZeRO {learner.zero_stage})"),
        ("optimizer", knobs(optimizer_settings(learner, warm))),
        ("run directory", str(config.directory)),
        *([("warning", slow)] if slow else []),
    ]
