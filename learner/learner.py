"""The learner: one rank's share of the update."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from collections.abc import Sequence as ListOf
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner import checkpoint, weights
from learner.advantages import group_advantages
from learner.backend import Backend, LossFunction, Rank
from learner.config import LearnerConfig, ModelConfig, check_together
from learner.losses import Stats, aggregate, mismatch_stats, policy_loss
from learner.metrics import optimizer_metrics, update_metrics
from learner.packing import Batch, Microbatch, Sequence, pack, sequence_of, sequences_of
from learner.parity import ParityError, policy_versions
from learner.policy import layout_for, load_policy, resolve_attention
from learner.reference import Reference
from learner.schedule import learning_rate
from learner.tally import Tally
from rollout.types import Group, SupervisedExample, WeightBucket


class Learner:
    """Trains the policy, as one of its ranks. Every method is collective: all ranks call it, with equal arguments.

    Each rank gets all the groups and takes its own share of them, the same one whenever it is asked.

    Args:
        config: the settings; for a warm start ``WarmStartConfig.applied_to(learner_config)``.
        model: dtype and attention of the policy.
        folder: Hugging Face folder or hub name of the policy, and of the reference where there is one.
        rank: this process's place among the ranks.
        num_steps: steps of the whole run, over which the learning rate takes its course.
        temperature: of the sampling distribution; 1 for a warm start.
        max_completion_tokens: the sampling limit; a denominator where ``loss_aggregation`` is ``constant``.
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
        torch.set_num_threads(config.threads_per_rank)
        self.config = config
        self.optimizer_step = 0
        self._folder = folder
        self._num_optimizer_steps = num_steps * config.updates_per_step
        self._max_completion_tokens = max_completion_tokens
        self._parity_limit = config.parity_limit(model.dtype)
        self._layout = layout_for(resolve_attention(model))
        self._backend = Backend(load_policy(folder, model, temperature), config, model.dtype, rank)
        self._reference = (
            Reference(folder, model, temperature, self._backend.device) if config.algorithm.kl_beta > 0 else None
        )

    def update(self, step: int, groups: ListOf[Group]) -> dict[str, float]:
        """Trains on the scored ``groups`` of ``step`` and returns metrics, the same on every rank.

        Without a reference, completions of advantage 0 are not computed: they count in the loss's denominator, but not
        in the per-token means of the metrics. The optimizer steps even if that leaves no gradient at all.

        Raises:
            ParityError: sampler and learner disagree on the sampled tokens; the policy is as it was.
            ValueError: there are fewer groups than ``updates_per_step``, or one does not fit a microbatch.
        """
        advantages = [self._advantages(group) for group in groups]
        tally, grad_norms = Tally(), []
        batches = self._with_old_logprobs(self._pack_groups(groups, advantages), tally)
        for batch in batches:
            for microbatch in batch.microbatches:
                tally.add(self._backend.forward_backward(microbatch, self._policy_loss(batch, microbatch)))
            self._prove_parity(step, groups, batches, tally)
            grad_norms.append(self._optim_step())
        totals = tally.reduce(self._backend)
        return update_metrics(batches, totals, advantages) | optimizer_metrics(
            batches, totals, grad_norms, self._learning_rate
        )

    def supervised_update(self, step: int, examples: ListOf[SupervisedExample]) -> dict[str, float]:
        """One optimizer step of cross entropy, per token, on the completions of ``examples``."""
        batch = self._pack([sequence_of(example) for example in examples])
        tally = Tally()
        for microbatch in batch.microbatches:
            tally.add(self._backend.forward_backward(microbatch, _cross_entropy(batch)))
        grad_norm = self._optim_step()
        return optimizer_metrics([batch], tally.reduce(self._backend), [grad_norm], self._learning_rate)

    def weight_buckets(self, max_bytes: int) -> Iterator[WeightBucket]:
        """The weights on rank 0, in buckets; elsewhere nothing. Every rank must exhaust it."""
        return weights.weight_buckets(self._backend, max_bytes)

    def export(self, folder: Path) -> None:
        """Writes the policy and its tokenizer as a Hugging Face folder."""
        weights.export(self._backend, self._folder, folder)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint that ``load`` goes on from bit for bit."""
        checkpoint.save(self._backend, folder, self.optimizer_step)

    def load(self, folder: Path) -> None:
        """Restores a checkpoint into a learner that has not saved one."""
        self.optimizer_step = checkpoint.load(self._backend, folder)

    def close(self) -> None:
        """Frees what this learner holds, so that another one can start in this process."""
        self._backend.close()

    def release_memory(self) -> None:
        """Hands cached GPU memory back to the device. vLLM's allocator cannot see blocks that PyTorch only caches."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _advantages(self, group: Group) -> NDArray[np.float64]:
        return group_advantages(group.totals, divide_by_std=self.config.algorithm.advantage_scale == "group_std")

    def _pack_groups(self, groups: ListOf[Group], advantages: ListOf[NDArray[np.float64]]) -> list[Batch]:
        """The groups' sequences, in one batch for each optimizer step."""
        if len(groups) < self.config.updates_per_step:
            raise ValueError(
                f"learner.updates_per_step is {self.config.updates_per_step}, but the step has {len(groups)} groups: "
                f"set it to {len(groups)} at most"
            )
        sequences = [sequences_of(group, credit) for group, credit in zip(groups, advantages, strict=True)]
        parts = np.array_split(np.arange(len(groups)), self.config.updates_per_step)
        return [self._pack([sequence for index in part for sequence in sequences[index]]) for part in parts]

    def _pack(self, sequences: ListOf[Sequence]) -> Batch:
        return pack(
            sequences,
            rank=self._backend.rank.index,
            num_ranks=self._backend.rank.world_size,
            max_tokens=self.config.max_tokens_per_microbatch,
            layout=self._layout,
            skip_zero_advantage=self._reference is None,
        )

    def _with_old_logprobs(self, batches: list[Batch], tally: Tally) -> list[Batch]:
        """``batches`` with ``old_logprobs`` where later optimizer steps would change them, by a pass of its own."""
        if len(batches) == 1:
            return batches

        def scored(microbatch: Microbatch) -> Microbatch:
            old_logprobs = self._backend.logprobs(microbatch)
            tally.add(mismatch_stats(old_logprobs, self._tensor(microbatch.rollout_logprobs)))
            return replace(microbatch, old_logprobs=old_logprobs.cpu().numpy())

        return [replace(batch, microbatches=tuple(map(scored, batch.microbatches))) for batch in batches]

    def _policy_loss(self, batch: Batch, microbatch: Microbatch) -> LossFunction:
        algorithm = self.config.algorithm
        reference_logprobs_T = self._reference.logprobs(microbatch) if self._reference else None

        def loss_function(logprobs_T: Tensor, entropy_T: Tensor) -> tuple[Tensor, Stats]:
            before = microbatch.old_logprobs
            old_logprobs_T = logprobs_T.detach() if before is None else self._tensor(before)
            loss_T, stats = policy_loss(
                logprobs_T,
                old_logprobs_T,
                self._tensor(microbatch.advantages),
                reference_logprobs_T,
                eps_low=algorithm.clip_eps_low,
                eps_high=algorithm.clip_eps_high,
                kl_beta=algorithm.kl_beta,
            )
            loss = aggregate(
                loss_T,
                self._tensor(microbatch.completion_lengths),
                mode=algorithm.loss_aggregation,
                total_tokens=batch.total_tokens,
                total_completions=batch.total_completions,
                max_completion_tokens=self._max_completion_tokens,
            )
            if before is None:
                stats |= mismatch_stats(old_logprobs_T, self._tensor(microbatch.rollout_logprobs))
            return loss, stats | {"loss": loss, "entropy": entropy_T.sum()}

        return loss_function

    def _prove_parity(self, step: int, groups: ListOf[Group], batches: ListOf[Batch], tally: Tally) -> None:
        totals = tally.reduce(self._backend)
        mean_gap = totals["logprob_gap"] / sum(batch.computed_tokens for batch in batches)
        # Written so that a gap that is not a number fails too.
        if not mean_gap <= self._parity_limit:
            self._backend.drop_gradients()
            raise ParityError(mean_gap, totals["logprob_gap_max"], self._parity_limit, step, policy_versions(groups))

    def _optim_step(self) -> float:
        """Applies the gradients and returns their norm."""
        self.optimizer_step += 1
        return self._backend.optim_step(self._learning_rate)

    @property
    def _learning_rate(self) -> float:
        return learning_rate(self.config, self.optimizer_step, self._num_optimizer_steps)

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array).to(self._backend.device)


def _cross_entropy(batch: Batch) -> LossFunction:
    def loss_function(logprobs_T: Tensor, entropy_T: Tensor) -> tuple[Tensor, Stats]:
        loss = -logprobs_T.sum() / batch.total_tokens
        return loss, {"loss": loss, "entropy": entropy_T.sum()}

    return loss_function
