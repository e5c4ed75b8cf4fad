"""The same tokens, rewards and weights through TRL's GRPO and through Rayzero's: advantages, loss and gradient.

TRL stays out of the project's environment, in a folder "$PEERS"; what it requires is there already:

    pip install --no-deps --target "$PEERS" trl==1.16.0
    PYTHONPATH="$PEERS:." python -m benchmarks.peers.trl_grpo_loss

TRL's side is a real ``GRPOTrainer``, on the CPU in float32. Its ``rollout_func`` hands over the completions; from there
on the code is TRL's: rewards, advantages, masks, log-probabilities of the old policy and of the reference, the split
into microbatches, ``compute_loss``. vLLM never runs: for TRL's correction of sampler mismatch ``use_vllm`` is set on
the finished trainer. Rayzero's side is what ``learner.learner`` puts together, without DeepSpeed: ``credited``,
``pack`` for two ranks whose parts are added, ``Policy``, ``Objective``.

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
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, logging

from learner.build import build_model
from learner.config import AlgorithmConfig, BuildConfig, ModelConfig
from learner.credit import credited
from learner.objective import Objective
from learner.packing import Sequence, pack, sequences_of
from learner.policy import Policy, PolicyOutput, load_policy, policy_inputs
from rollout.types import Completion, Group, Prompt, Reward

TRL = "1.16.0"
LIMIT = 1e-5
# Wide initial weights: the distributions have peaks, so that entropies differ.
BUILD = BuildConfig(hidden_size=32, num_layers=2, intermediate_size=48, init_std=0.25, max_integer=61, words=("+",))
TEMPERATURE, MAX_COMPLETION_TOKENS = 0.8, 16
NUM_GROUPS, GROUP_SIZE = 3, 6
Settings = dict[str, Any]
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One algorithm in both projects' words."""

    name: str
    ours: Settings
    theirs: Settings
    on_policy: bool = False
    """The policy before the update is the policy now; else its weights have moved, so that ratios leave 1."""
    microbatches: int = 2
    """TRL's."""
    factor: float = 1.0
    """TRL's loss is multiplied by it."""
    flat_reward: float = 1.0
    """Every reward of the group without spread."""
    note: str = ""
    """Why the two must differ; empty where they must be equal."""


@dataclass(frozen=True)
class Problem:
    """What both sides are given."""

    folder: Path
    """The reference, and the tokenizer."""
    policy: Policy
    reference: Policy
    old: Weights
    now: Weights
    groups: list[Group]

    def groups_of(self, case: Case) -> list[Group]:
        flat = replace(self.groups[1], rewards=(Reward(case.flat_reward, ()),) * GROUP_SIZE)
        return [self.groups[0], flat, *self.groups[2:]]


@dataclass(frozen=True)
class Outcome:
    loss: float
    advantages: np.ndarray
    gradient: Weights
    clipped: float = 0.0
    """Share of the computed tokens that are at a bound."""


def main() -> int:
    try:
        found = version("trl")
    except PackageNotFoundError:
        found = "none"
    if found != TRL:
        print(f"this needs trl {TRL}, found {found}: the docstring says how to get it", file=sys.stderr)
        return 2
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        problem = make_problem(Path(folder))
        print(
            f"TRL {found}, torch {torch.__version__}, float32; {NUM_GROUPS} groups of {GROUP_SIZE}, one without spread"
        )
        good = table("must be equal", equal_cases(), problem)
        good &= table("must differ", different_cases(), problem)
        good &= overlong_punishments_agree()
    print("\nall as expected" if good else "\nNOT as expected")
    return 0 if good else 1


def equal_cases() -> Iterator[Case]:
    """Every algorithm with three pairs of bounds, with and without KL, off policy; its preset on policy; and extras."""
    grpo, dr_grpo, dapo, cispo = their_losses()
    algorithms = {
        "grpo": (grpo, [(0.2, 0.2), (0.2, 0.28), (0.05, 0.4)]),
        "dr_grpo": (dr_grpo, [(0.2, 0.2), (0.2, 0.28), (0.05, 0.4)]),
        "dapo": (dapo, [(0.2, 0.28), (0.2, 0.2), (0.05, 0.4)]),
        "gspo": (grpo | {"importance_sampling_level": "sequence"}, [(3e-4, 4e-4), (0.02, 0.05), (0.2, 0.2)]),
        "cispo": (cispo, [(1.0, 4.0), (1.0, 0.5), (1.0, 0.1)]),
    }
    for preset, (theirs, pairs) in algorithms.items():
        for (low, high), beta in product(pairs, (0.0, 0.04)):
            ours: Settings = {"preset": preset, "clip_eps_low": low, "clip_eps_high": high, "kl_beta": beta}
            yield case(f"{preset}, eps {low:g} {high:g}, beta {beta:g}", ours, theirs)
        yield case(f"{preset}, on policy, beta 0.04", {"preset": preset, "kl_beta": 0.04}, theirs, on_policy=True)
    yield case("grpo, dual clip 1.5", {"dual_clip": 1.5}, grpo | {"delta": 1.5})
    yield case("grpo, std of the batch", {"advantage_scale": "batch_std"}, grpo | {"scale_rewards": "batch"})
    mask = {"mask_truncated_completions": True}
    yield case("dapo, truncated masked", {"preset": "dapo", "overlong": "mask"}, dapo | mask)
    factor = GROUP_SIZE / (GROUP_SIZE - 1)
    yield case("grpo, truncated masked, x 6/5", {"overlong": "mask"}, grpo | mask, factor=factor)
    ours = {"preset": "dr_grpo", "overlong": "mask"}
    yield case("dr_grpo, truncated masked, x 6/5", ours, dr_grpo | mask, factor=factor)
    ours, theirs = {"preset": "dapo", "entropy_beta": 0.01}, dapo | {"entropy_coef": 0.01}
    yield case("dapo, entropy 0.01, one microbatch", ours, theirs, microbatches=1)
    yield case("grpo, mismatch token_truncate", mismatch("truncated"), grpo | corrected("token_truncate"))
    yield case("grpo, mismatch sequence_truncate", mismatch("sequence"), grpo | corrected("sequence_truncate"))
    yield case("grpo, mismatch token_mask", mismatch("masked"), grpo | corrected("token_mask", clip_min=0.8))


def different_cases() -> Iterator[Case]:
    """Where the two mean different things, nearest setting against nearest setting."""
    grpo, dr_grpo, dapo, cispo = their_losses()
    note = (
        "TRL's default multiplies k3 by the ratio, with its gradient (DeepSeek-V3.2, arXiv:2512.02556). "
        "Rayzero's k3 is\n"
        "    GRPO's, arXiv:2402.03300 equation 4. On policy the value is the same, the gradient is not."
    )
    ours: Settings = {"kl_beta": 0.04}
    theirs = grpo | {"use_bias_correction_kl": True}
    yield case("grpo, beta 0.04, KL times ratio", ours, theirs, note=note)
    yield case("grpo, same, on policy", ours, theirs, on_policy=True, note=note)
    note = (
        "A masked completion leaves Rayzero's denominators too; TRL counts it in the mean over completions. DAPO,\n"
        "    arXiv:2503.14476 section 3.4, masks under a mean over tokens, where both agree."
    )
    mask = {"mask_truncated_completions": True}
    yield case("grpo, truncated masked", {"overlong": "mask"}, grpo | mask, note=note)
    ours = {"preset": "dr_grpo", "overlong": "mask"}
    yield case("dr_grpo, truncated masked", ours, dr_grpo | mask, note=note)
    note = (
        "Rayzero weighs a token's entropy as its policy term. TRL takes the mean over a microbatch's tokens "
        "whatever the\n"
        "    loss, so that it depends on the split into microbatches. These losses' papers have no entropy term."
    )
    entropy = {"entropy_coef": 0.01}
    yield case("grpo, entropy 0.01, one microbatch", {"entropy_beta": 0.01}, grpo | entropy, microbatches=1, note=note)
    yield case("dapo, entropy 0.01", {"preset": "dapo", "entropy_beta": 0.01}, dapo | entropy, note=note)
    note = (
        "TRL clamps at epsilon_high itself, as ScaleRL, arXiv:2510.13786, and never from below. "
        "Rayzero clips to 1 - low\n"
        "    and 1 + high, as MiniMax-M1, arXiv:2506.13585 equation 5; TRL's x is its clip_eps_high x - 1, low being 1."
    )
    ours = {"preset": "cispo", "clip_eps_high": 1.2}
    yield case("cispo, high bound 1.2 in both", ours, cispo | {"epsilon_high": 1.2}, note=note)
    ours = {"preset": "cispo", "clip_eps_high": 0.5, "clip_eps_low": 0.1}
    yield case("cispo, eps 0.1 0.5", ours, cispo, note=note)
    note = "TRL's default drops a completion beyond its bound. Rayzero's nearest is sequence_truncate, which caps it."
    yield case("grpo, mismatch sequence_mask", mismatch("sequence"), grpo | corrected("sequence_mask"), note=note)
    note = (
        "The float32 mean of equal rewards of 0.3 is not 0.3, and TRL divides what is left by 1e-4. "
        "Rayzero gives a group\n"
        "    without spread exactly 0."
    )
    yield case("grpo, flat group of 0.3", {}, grpo, flat_reward=0.3, note=note)


def their_losses() -> tuple[Settings, ...]:
    """GRPO, Dr. GRPO, DAPO and CISPO in TRL's words."""
    dr_grpo = {"loss_type": "dr_grpo", "scale_rewards": "none"}
    return {"loss_type": "grpo"}, dr_grpo, {"loss_type": "dapo"}, {"loss_type": "cispo"}


def case(name: str, ours: Settings, theirs: Settings, **rest: Any) -> Case:
    """With Rayzero's bounds and KL put into TRL's words, where ``theirs`` says nothing else."""
    config = AlgorithmConfig(**ours)
    bounds = {"epsilon": config.clip_eps_low, "epsilon_high": config.clip_eps_high}
    if config.surrogate == "cispo":
        bounds = {"epsilon_high": 1 + config.clip_eps_high}
    return Case(name, ours, bounds | {"beta": config.kl_beta} | theirs, **rest)


def mismatch(correction: str) -> Settings:
    return {"mismatch_correction": correction, "mismatch_low": 0.8, "mismatch_high": 1.2}


def corrected(mode: str, clip_min: float | None = None) -> Settings:
    prefix = "vllm_importance_sampling_"
    return {f"{prefix}mode": mode, f"{prefix}clip_max": 1.2, f"{prefix}clip_min": clip_min}


def make_problem(folder: Path) -> Problem:
    """A reference, an old policy and one of now, each some random noise from the last; completions of random tokens."""
    build_model(BUILD, 0, folder)
    config = ModelConfig(path=str(folder), dtype="float32", attention="sdpa")
    policy, reference = (load_policy(folder, config, TEMPERATURE) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    old = moved(reference.model.state_dict(), generator)
    policy.model.load_state_dict(old)
    rng = np.random.default_rng(0)
    groups = [make_group(folder, policy, rng, index) for index in range(NUM_GROUPS)]
    return Problem(folder, policy, reference, old, moved(old, generator), groups)


def moved(weights: Weights, generator: torch.Generator) -> Weights:
    noise = {name: torch.randn(weight.shape, generator=generator) for name, weight in weights.items()}
    return {name: weight + 0.05 * BUILD.init_std * noise[name] for name, weight in weights.items()}


def make_group(folder: Path, policy: Policy, rng: np.random.Generator, index: int) -> Group:
    """Ragged prompts and completions, the first cut off at the limit; rollout logprobs near the policy's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "+".join(str(number) for number in rng.integers(0, 60, 1 + 2 * index))
    prompt = Prompt(str(index), np.array(tokenizer(text).input_ids, np.int32), text, task="none", answer={})
    completions = []
    for length in (MAX_COMPLETION_TOKENS, *rng.integers(1, MAX_COMPLETION_TOKENS, GROUP_SIZE - 1)):
        tokens = rng.integers(2, 60, length).astype(np.int32)
        is_cut_off = length == MAX_COMPLETION_TOKENS
        if not is_cut_off:
            tokens[-1] = tokenizer.eos_token_id
        blank = Completion(tokens, np.zeros(length, np.float32), "length" if is_cut_off else "stop", (0,), "")
        logprobs = logprobs_of(policy, sequences_of([Group(prompt, (blank,))])[0])
        noise = rng.normal(0, 0.2, length).astype(np.float32)
        completions.append(replace(blank, rollout_logprobs=logprobs + noise))
    rewards = rng.normal(size=GROUP_SIZE).astype(np.float32)
    return Group(prompt, tuple(completions), tuple(Reward(float(reward), ()) for reward in rewards))


def rayzero(case: Case, problem: Problem) -> Outcome:
    """As ``Learner.update`` does it, on two ranks whose parts of the loss are added."""
    config, policy = AlgorithmConfig(**case.ours), problem.policy
    groups = problem.groups_of(case)
    known: Settings = {"kl_beta": config.kl_beta, "max_completion_tokens": MAX_COMPLETION_TOKENS}
    sequences = credited(sequences_of(groups), groups, config, **known)
    if not case.on_policy:
        policy.model.load_state_dict(problem.old)
        sequences = [replace(sequence, old_logprobs=logprobs_of(policy, sequence)) for sequence in sequences]
    if config.kl_beta > 0:
        sequences = [replace(s, ref_logprobs=logprobs_of(problem.reference, s)) for s in sequences]
    policy.model.load_state_dict(problem.now)
    policy.zero_grad()
    skip = config.kl_beta == 0 and config.entropy_beta == 0
    loss = clipped = 0.0
    for rank in range(2):
        batch = pack(sequences, rank=rank, num_ranks=2, max_tokens=64, layout="rows", skip_zero_advantage=skip)
        for microbatch in batch.microbatches:
            output = PolicyOutput(*policy(*policy_inputs(microbatch, torch.device("cpu"))))
            part, stats = Objective(config, batch, **known)(output, microbatch)
            part.backward()
            loss += part.item()
            clipped += stats["clipped"].item() / batch.computed_tokens
    advantages = np.array([sequence.advantages[0] for sequence in sequences])
    return Outcome(loss, advantages, gradient_of(policy.model), clipped)


def logprobs_of(policy: Policy, sequence: Sequence) -> np.ndarray:
    """Of the sequence's completion, nats."""
    batch = pack([sequence], rank=0, num_ranks=1, max_tokens=64, layout="rows", skip_zero_advantage=False)
    with torch.no_grad():
        return policy(*policy_inputs(batch.microbatches[0], torch.device("cpu")))[0].numpy()


def trl(case: Case, problem: Problem) -> Outcome:
    """As TRL's training loop does it, up to the optimizer step."""
    groups = problem.groups_of(case)
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

    from learner.advantages import soft_overlong_punishment

    lengths = range(1, 25)
    theirs = get_soft_overlong_punishment(20, 5)(completion_ids=[[0] * length for length in lengths])
    ours = [soft_overlong_punishment(length, max_tokens=20, buffer_tokens=5) for length in lengths]
    gap = max(abs(a - b) for a, b in zip(theirs, ours, strict=True))
    print(f"\nsoft overlong punishment, limit 20, buffer 5, lengths 1 to 24: largest difference {gap:.1e}")
    return gap <= LIMIT


if __name__ == "__main__":
    sys.exit(main())
