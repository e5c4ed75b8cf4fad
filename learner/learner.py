"""The learner: one rank of the policy's update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import torch

from learner import metrics
from learner.algorithm.advantages import adapted_kl_beta
from learner.algorithm.credit_assignment import assign_advantages, kl_to_reference
from learner.algorithm.objective import Objective, ObjectiveFunction, cross_entropy
from learner.backend import checkpoint
from learner.backend.forward_backward import Backend, StatsAccumulator
from learner.backend.optimizer import Optimizer, OptimizerStep
from learner.backend.rank import Rank
from learner.checks import check_together
from learner.config import LearnerConfig, ModelConfig
from learner.logprob_record import TokenNats
from learner.microbatches import Batch
from learner.model.logprob_notes import LogprobNotes
from learner.model.logprob_pass import LogprobPass
from learner.model.policy import add_value_head, break_even_length, load_policy, resolve_attention
from learner.model.reference import build_reference
from learner.packing import pack, split_by_update
from learner.parity import NonFiniteError, ParityError, check_finite, check_parity, policy_versions
from learner.sequences import TrainingSequence, select_computed, sequence_from_example, sequences_from_groups
from learner.weights import gather
from learner.weights.senders import IpcSender, NcclSender
from rollout.types.completions import Group
from rollout.types.prompts import SupervisedExample
from rollout.types.publishing import WeightBucket, WeightManifest


class Learner:
    """One rank of the learner, which trains the policy.

    Every method is collective unless it says otherwise: all ranks call it, with equal arguments. Each rank gets all
    groups and computes its own share of them.

    Args:
        config: the settings; for a warm start ``WarmStartConfig.applied_to(learner_config)``.
        model: dtype and attention of the policy.
        folder: Hugging Face folder or hub name of the policy, and of the reference if it has one.
        rank: this process's place among the ranks.
        num_steps: number of steps in the whole run; the learning rate schedule covers them.
        temperature: temperature of the sampling distribution; 1 for a warm start.
        max_completion_tokens: the sampling limit; a factor of the denominator if ``loss_aggregation`` is ``constant``.
    """

    def __init__(
        self,
        config: LearnerConfig,
        model: ModelConfig,
        folder: Path | str,
        rank: Rank,
        *,
        num_steps: int,
        temperature: float,
        max_completion_tokens: int,
    ) -> None:
        check_together(config, model)
        torch.set_num_threads(config.threads_per_rank or 1)
        self.config = config
        self.kl_beta = config.algorithm.kl_beta
        self._folder = folder
        self._max_completion_tokens = max_completion_tokens
        self._parity_limit = config.parity_limit(model.dtype)
        policy = load_policy(folder, model, temperature)
        if config.algorithm.uses_critic:
            add_value_head(policy)
        self._backend = Backend(policy, config, model.dtype, rank)
        self._optimizer = Optimizer(config, self._backend, num_steps * config.updates_per_step)
        self._backend.prove_finite(f"the model in {folder}", "Set model.path to another one")
        self._reference = build_reference(config.algorithm, model, folder, temperature, self._backend)
        self._logprob_pass = LogprobPass(config, self._backend, self._reference)
        self._notes: LogprobNotes | None = None
        self._pack = partial(
            pack,
            rank=rank.index,
            num_ranks=rank.world_size,
            max_tokens=config.max_tokens_per_microbatch,
            layout="flat" if resolve_attention(model) == "flash_attention_2" else "rows",
            break_even=break_even_length(policy.model),
        )

    def update(self, step: int, groups: Sequence[Group], *, records_logprobs: bool = False) -> metrics.Update:
        """Train on the scored ``groups`` of ``step``, and return the same metrics and advantages on every rank.

        Completions without a gradient are not computed: they count in the loss's denominator, but not in the per-token
        means of the metrics. The optimizer steps even if no completion has a gradient. An update whose gradient is not
        finite is skipped, and the notices report it. ``records_logprobs`` fills ``Update.logprobs``.

        Raises:
            ParityError: sampler and learner disagree on the sampled tokens; the policy is unchanged.
            NonFiniteError: log-probabilities are not finite; the policy is unchanged.
            NonFiniteGradientError: more than ``max_skipped_updates`` updates in a row were skipped.
            ValueError: ``updates_per_step`` does not divide the number of groups, or a sequence exceeds a microbatch.
        """
        stats, applied = StatsAccumulator(), []
        with nullcontext() if self._reference is None else self._reference.in_use():
            sequences = self._assign_advantages(sequences_from_groups(groups, version=step - 1), groups, stats)
            parts = split_by_update(sequences, self.config.updates_per_step)
            batches = [self._pack(part, computed=self._computed(part)) for part in parts]
            notes = self._notes = LogprobNotes(sequences) if records_logprobs else None
            for batch in batches:
                self._forward_backward(batch, self._objective(batch, notes), stats)
                if batch is batches[0]:
                    self._prove_parity(step, groups, stats)
                applied.append(self._optimizer.apply(step))
        update = self._report(groups, sequences, batches, stats.reduce(self._backend), applied)
        return replace(update, logprobs=notes.gaps(self._backend)) if notes else update

    def score_again(self) -> TokenNats:
        """Return ``LogprobRecord.changes`` of the last update, from one more forward pass. It changes nothing."""
        assert self._notes is not None, "the last update recorded no logprobs"
        return self._notes.changes(self._backend)

    def supervised_update(self, step: int, examples: Sequence[SupervisedExample]) -> metrics.Update:
        """Take one optimizer step of cross entropy, averaged over the completion tokens of ``examples``."""
        batch = self._pack([sequence_from_example(example) for example in examples])
        stats = StatsAccumulator()
        self._forward_backward(batch, cross_entropy(batch), stats)
        applied = [self._optimizer.apply(step)]
        values = metrics.optimizer_metrics([batch], stats.reduce(self._backend), applied, self._optimizer.learning_rate)
        return metrics.Update(values, notices=metrics.notices_of(applied))

    def weight_buckets(self, max_bytes: int) -> Iterator[WeightBucket]:
        """Yield the weights on rank 0, in buckets of at most ``max_bytes``; other ranks iterate too, over nothing."""
        return gather.weight_buckets(self._backend, max_bytes)

    def weight_manifest(self) -> WeightManifest:
        """Return the names, dtypes and shapes of the weights that a publish sends. Not collective."""
        return gather.manifest(self._backend)

    @cached_property
    def ipc(self) -> IpcSender:
        """The sender to generators on this rank's GPU."""
        return IpcSender(self._backend)

    @cached_property
    def nccl(self) -> NcclSender:
        """The sender to generators on other GPUs."""
        return NcclSender(self._backend)

    def export(self, folder: Path) -> None:
        """Write the policy and its tokenizer as a Hugging Face folder. Raises NonFiniteError before it writes."""
        gather.export(self._backend, self._folder, folder)

    def save(self, folder: Path) -> dict[str, str]:
        """Write a checkpoint from which ``load`` continues bit for bit, and return the digest of each of its files.

        The digests are ``size:sha256`` in hexadecimal, by path within ``folder``, the same on every rank.
        Raises NonFiniteError, before anything is written, for weights that are not finite.
        """
        return checkpoint.save(self._backend, folder, self._optimizer.state() | {"kl_beta": self.kl_beta})

    def load(self, folder: Path) -> None:
        """Restore a checkpoint into a learner that has not saved one.

        Raises:
            FileNotFoundError: the folder holds no checkpoint.
            ValueError: the checkpoint has other settings or other frozen weights; the message names them.
            NonFiniteError: its weights are not finite, which earlier versions did not check.
        """
        state = checkpoint.load(self._backend, folder)
        self._optimizer.restore(state)
        self.kl_beta = state["kl_beta"]

    def close(self) -> None:
        """Free this learner's resources, so that another learner can start in this process."""
        self.nccl.leave()
        self._backend.close()

    @property
    def num_microbatches(self) -> int:
        """Number of microbatches that this rank has computed, with or without backward pass. Not collective."""
        return self._backend.num_microbatches

    def _assign_advantages(
        self, sequences: list[TrainingSequence], groups: Sequence[Group], stats: StatsAccumulator
    ) -> list[TrainingSequence]:
        """Return ``sequences`` with advantages, and with the log-probabilities and values that advantages or loss need.

        If only the loss needs them, only the sequences that will have a gradient get them.
        """
        algorithm = self.config.algorithm
        if algorithm.advantages_need_logprobs:
            sequences = self._logprob_pass.run(sequences, self._pack(sequences), stats)
        sequences = assign_advantages(
            sequences, groups, algorithm, kl_beta=self.kl_beta, max_completion_tokens=self._max_completion_tokens
        )
        if algorithm.advantages_need_logprobs or not self._logprob_pass.is_needed:
            return sequences
        parts = split_by_update(sequences, self.config.updates_per_step)
        computed = [sequence for part in parts for sequence in self._computed(part)]
        return self._logprob_pass.run(sequences, self._pack(computed), stats)

    def _computed(self, part: Sequence[TrainingSequence]) -> list[TrainingSequence]:
        """Return the sequences of an optimizer step that get a forward pass, both before and during the update."""
        return select_computed(part, skip_zero_advantage=self.config.algorithm.skips_zero_advantage)

    def _objective(self, batch: Batch, notes: LogprobNotes | None) -> ObjectiveFunction:
        limit = self._max_completion_tokens
        objective = Objective(self.config.algorithm, batch, kl_beta=self.kl_beta, max_completion_tokens=limit)
        return notes.watch(objective) if notes else objective

    def _forward_backward(self, batch: Batch, objective: ObjectiveFunction, stats: StatsAccumulator) -> None:
        needs_distribution = self._reference is not None and self.config.algorithm.kl_estimator == "exact"
        for microbatch in batch.microbatches:
            reference = self._reference.distribution(microbatch) if self._reference and needs_distribution else None
            stats.add(self._backend.forward_backward(microbatch, objective, reference))

    def _prove_parity(self, step: int, groups: Sequence[Group], stats: StatsAccumulator) -> None:
        totals = stats.reduce(self._backend)
        try:
            check_finite(totals, step, self._backend.non_finite_weights)
            check_parity(totals, self._parity_limit, step, policy_versions(groups))
        except (ParityError, NonFiniteError):
            self._backend.drop_gradients()
            raise

    def _report(
        self,
        groups: Sequence[Group],
        sequences: Sequence[TrainingSequence],
        batches: Sequence[Batch],
        totals: dict[str, float],
        applied: Sequence[OptimizerStep],
    ) -> metrics.Update:
        """Return the step's metrics. If the KL has a target, adapt its weight for the next step."""
        algorithm = self.config.algorithm
        values = metrics.update_metrics(batches, totals, sequences, groups)
        values |= metrics.optimizer_metrics(batches, totals, applied, self._optimizer.learning_rate)
        if algorithm.uses_critic:
            values |= metrics.critic_metrics(batches, totals, sequences)
        kl = metrics.reference_kl(batches, totals, [kl_to_reference(s, algorithm) for s in sequences], algorithm)
        if kl is not None:
            values |= {f"optim/kl_{algorithm.kl_estimator}": kl, "optim/kl_beta": self.kl_beta}
            if algorithm.kl_target is not None:
                self.kl_beta = adapted_kl_beta(self.kl_beta, kl, algorithm.kl_target)
        return metrics.Update(values, metrics.advantages_by_group(sequences, groups), metrics.notices_of(applied))
