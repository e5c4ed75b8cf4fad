"""The same tokens, rewards and weights through TRL's GRPO and through Rayzero's: advantages, loss and gradient.

TRL stays out of the project's environment, in a folder "$PEERS"; what it requires is there already:

    pip install --no-deps --target "$PEERS" trl==1.16.0
    PYTHONPATH="$PEERS:." python -m benchmarks.peers.trl_grpo_loss

TRL's side is a real ``GRPOTrainer``, on the CPU in float32. Its ``rollout_func`` hands over the completions; from there
on the code is TRL's: rewards, advantages, masks, log-probabilities of the old policy and of the reference, the split
into microbatches, ``compute_loss``. vLLM never runs: for TRL's correction of sampler mismatch ``use_vllm`` is set on
the finished trainer. Rayzero's side is what ``learner.learner`` puts together, without DeepSpeed:
``assign_advantages``, ``pack`` for two ranks whose parts are added, ``Policy``, ``Objective``.

Exits 1 unless advantages, loss and gradient (as such, and over its largest element) are within 1e-5 where both sides
mean the same, and are not where the second table says that they do not; 2 without TRL 1.16.0.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, logging

from benchmarks.peers.problem import (
    GROUP_SIZE,
    MAX_COMPLETION_TOKENS,
    NUM_GROUPS,
    TEMPERATURE,
    Problem,
    Settings,
    Weights,
    logprobs_of,
    make_problem,
)
from benchmarks.peers.trl_cases import Case, different_cases, equal_cases
from benchmarks.peers.trl_version import TRL, missing_trl
from learner.algorithm.credit_assignment import assign_advantages
from learner.algorithm.objective import Objective
from learner.algorithm.settings import AlgorithmConfig
from learner.model.policy import PolicyOutput, policy_inputs
from learner.packing import pack
from learner.sequences import select_computed, sequences_from_groups
from rollout.types.completions import Group

LIMIT = 1e-5


@dataclass(frozen=True)
class Outcome:
    loss: float
    advantages: np.ndarray
    gradient: Weights
    clipped: float = 0.0
    """Share of the computed tokens that are at a bound."""


def main() -> int:
    if (missing := missing_trl()) is not None:
        print(missing, file=sys.stderr)
        return 2
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(Path(folder))
        print(f"TRL {TRL}, torch {torch.__version__}, float32; {NUM_GROUPS} groups of {GROUP_SIZE}, one without spread")
        good = table("must be equal", equal_cases(), problem)
        good &= table("must differ", different_cases(), problem)
        good &= overlong_punishments_agree()
    print("\nall as expected" if good else "\nNOT as expected")
    return 0 if good else 1


def rayzero(case: Case, problem: Problem) -> Outcome:
    """As ``Learner.update`` does it, on two ranks whose parts of the loss are added."""
    config, policy = AlgorithmConfig(**case.ours), problem.policy
    groups = problem.groups_of(case.flat_reward)
    known: Settings = {"kl_beta": config.kl_beta, "max_completion_tokens": MAX_COMPLETION_TOKENS}
    sequences = assign_advantages(sequences_from_groups(groups), groups, config, **known)
    if not case.on_policy:
        policy.model.load_state_dict(problem.old)
        sequences = [replace(sequence, old_logprobs=logprobs_of(policy, sequence)) for sequence in sequences]
    if config.kl_beta > 0:
        sequences = [replace(s, ref_logprobs=logprobs_of(problem.reference, s)) for s in sequences]
    policy.model.load_state_dict(problem.now)
    policy.zero_grad()
    skip = config.kl_beta == 0 and config.entropy_beta == 0
    computed = select_computed(sequences, skip_zero_advantage=skip)
    loss = clipped = 0.0
    for rank in range(2):
        batch = pack(sequences, rank=rank, num_ranks=2, max_tokens=64, layout="rows", computed=computed)
        for microbatch in batch.microbatches:
            output = PolicyOutput(*policy(*policy_inputs(microbatch, torch.device("cpu"))))
            part, stats = Objective(config, batch, **known)(output, microbatch)
            part.backward()
            loss += part.item()
            clipped += stats["clipped"].item() / batch.computed_tokens
    advantages = np.array([sequence.advantages[0] for sequence in sequences])
    return Outcome(loss, advantages, gradient_of(policy.model), clipped)


def trl(case: Case, problem: Problem) -> Outcome:
    """As TRL's training loop does it, up to the optimizer step."""
    groups = problem.groups_of(case.flat_reward)
    trainer = make_trainer(case, problem.folder, groups)
    trainer.model.load_state_dict(problem.now if case.on_policy else problem.old)
    trainer.model.train()
    rows = [{"prompt": group.prompt.text} for group in groups for _ in group.completions]
    batches = []
    for trainer._step in range(case.microbatches):  # the first prepares all of them, in random order
        batches.append(trainer._prepare_inputs(rows))
    trainer.model.load_state_dict(problem.now)
    loss = 0.0
    for batch in batches:
        assert ("old_per_token_logps" in batch) != case.on_policy
        part = case.factor * trainer.compute_loss(trainer.model, batch)
        part.backward()
        loss += part.item()
    return Outcome(loss, np.array(trainer._logs["advantages"]), gradient_of(trainer.model))


def make_trainer(case: Case, folder: Path, groups: list[Group]) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer
    from trl.rewards import get_soft_overlong_punishment

    config = {
        "num_iterations": 1 if case.on_policy else 2,
        "gradient_accumulation_steps": case.microbatches,
        "per_device_train_batch_size": NUM_GROUPS * GROUP_SIZE // case.microbatches,
        "num_generations": GROUP_SIZE,
        "max_completion_length": MAX_COMPLETION_TOKENS,
        "temperature": TEMPERATURE,
        "use_bias_correction_kl": False,
    }
    cpu = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False}
    rewards: list[Any] = [lambda **_: [float(reward) for group in groups for reward in group.totals]]
    if AlgorithmConfig(**case.ours).overlong == "soft_punish":
        rewards.append(get_soft_overlong_punishment(MAX_COMPLETION_TOKENS, MAX_COMPLETION_TOKENS // 5))
    trainer = GRPOTrainer(
        str(folder),
        rewards,
        GRPOConfig(str(folder / "trl"), **cpu, **(config | case.theirs)),
        Dataset.from_list([{"prompt": group.prompt.text} for group in groups]),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="left"),
        rollout_func=lambda prompts, trainer: completions_of(groups),
    )
    trainer.current_gradient_accumulation_steps = case.microbatches  # as the training loop sets it
    if "vllm_importance_sampling_mode" in case.theirs:
        trainer.use_vllm, trainer._last_loaded_step = True, trainer.state.global_step
    return trainer


def completions_of(groups: list[Group]) -> Settings:
    """What TRL's ``rollout_func`` returns."""
    pairs = [(group.prompt, completion) for group in groups for completion in group.completions]
    return {
        "prompt_ids": [prompt.token_ids.tolist() for prompt, _ in pairs],
        "completion_ids": [completion.token_ids.tolist() for _, completion in pairs],
        "logprobs": [completion.rollout_logprobs.tolist() for _, completion in pairs],
    }


def gradient_of(model: torch.nn.Module) -> Weights:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def table(title: str, cases: Iterator[Case], problem: Problem) -> bool:
    """Prints a line for each case; whether all came out as they must."""
    print(f"\n{title:<36} {'TRL loss':>10} {'Rayzero':>10}   |diff|  advant. gradient relative clip")
    good, notes = True, list[str]()
    for case in cases:
        theirs, ours = trl(case, problem), rayzero(case, problem)
        gaps = differences(theirs, ours)
        # Written so that a gap that is not a number is a difference.
        is_equal = all(gap <= LIMIT for gap in gaps)
        good &= is_equal == (not case.note)
        if case.note and case.note not in notes:
            notes.append(case.note)
        verdict = "equal" if is_equal else "differs"
        verdict += f" [{notes.index(case.note) + 1}]" if case.note else ""
        verdict += "" if is_equal == (not case.note) else "  <- UNEXPECTED"
        numbers = f"{theirs.loss:10.6f} {ours.loss:10.6f} {' '.join(f'{gap:8.1e}' for gap in gaps)}"
        print(f"{case.name:<36} {numbers} {ours.clipped:4.0%} {verdict}", flush=True)
    for number, note in enumerate(notes, start=1):
        print(f"[{number}] {note}")
    return good


def differences(theirs: Outcome, ours: Outcome) -> tuple[float, ...]:
    """The largest of the loss, the advantages, the gradient, and that over the gradient's largest element."""
    assert theirs.gradient.keys() == ours.gradient.keys()
    largest = max(gradient.abs().max().item() for gradient in theirs.gradient.values())
    gap = max((theirs.gradient[name] - ours.gradient[name]).abs().max().item() for name in ours.gradient)
    advantages = float(np.abs(theirs.advantages - ours.advantages).max())
    return abs(theirs.loss - ours.loss), advantages, gap, gap / largest


def overlong_punishments_agree() -> bool:
    """DAPO's soft punishment, arXiv:2503.14476 equation 13, at every length."""
    from trl.rewards import get_soft_overlong_punishment

    from learner.algorithm.advantages import soft_overlong_punishment

    lengths = range(1, 25)
    theirs = get_soft_overlong_punishment(20, 5)(completion_ids=[[0] * length for length in lengths])
    ours = [soft_overlong_punishment(length, max_tokens=20, buffer_tokens=5) for length in lengths]
    gap = max(abs(a - b) for a, b in zip(theirs, ours, strict=True))
    print(f"\nsoft overlong punishment, limit 20, buffer 5, lengths 1 to 24: largest difference {gap:.1e}")
    return gap <= LIMIT


if __name__ == "__main__":
    sys.exit(main())
