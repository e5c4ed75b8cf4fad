"""Pack sequences into microbatches: balanced over ranks by tokens, the same number on every rank. Pure numpy.

There are two layouts. In ``rows``, a row has a prompt once and some of its completions: each completion attends to the
prompt and to itself, and its position ids continue those of the prompt. A microbatch has rows of similar length. In
``flat``, all sequences are on one row, and position ids restart for each. It needs no padding, but only variable-length
kernels (flash attention) avoid a dense mask of ``tokens ** 2``, and these cannot share a prompt. Measured on one core
with 2,025 tokens of 75-token sequences: 9,600 tokens/s in rows of one sequence, 3,000 in flat with SDPA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from learner.bundles import PromptBundle, bundle_by_prompt
from learner.microbatches import Batch, Rows, lay_out
from learner.sequences import TrainingSequence

PackingLayout = Literal["rows", "flat"]

SHARES_PER_RANK = 2
"""A bundle has at most 1 / SHARES_PER_RANK of a rank's tokens, so that ranks can be balanced."""


def split_by_update(sequences: Sequence[TrainingSequence], updates_per_step: int) -> list[list[TrainingSequence]]:
    """Return the sequences of each optimizer step, which has complete groups, the same number in each.

    Raises:
        ValueError: ``updates_per_step`` does not divide the number of groups.
    """
    prompts = list(dict.fromkeys(sequence.prompt_id for sequence in sequences))
    if len(prompts) % updates_per_step:
        raise ValueError(
            f"learner.updates_per_step is {updates_per_step}, which does not divide the step's {len(prompts)} groups: "
            f"set it to a divisor of prompts_per_step, or prompts_per_step to a multiple of {updates_per_step}"
        )
    update_of = {prompt: position * updates_per_step // len(prompts) for position, prompt in enumerate(prompts)}
    updates: list[list[TrainingSequence]] = [[] for _ in range(updates_per_step)]
    for sequence in sequences:
        updates[update_of[sequence.prompt_id]].append(sequence)
    return updates


def pack(
    sequences: Sequence[TrainingSequence],
    *,
    computed: Sequence[TrainingSequence] | None = None,
    rank: int,
    num_ranks: int,
    max_tokens: int,
    layout: PackingLayout,
    break_even: int = 0,
) -> Batch:
    """Return rank ``rank``'s share of ``computed``, in microbatches of at most ``max_tokens`` tokens, with padding.

    Args:
        sequences: the sequences that the totals count, except masked ones.
        computed: the sequences that get a forward pass, from ``select_computed``. Default: all.
        break_even: the length of a row, in tokens, at which attention takes as long as all other matrix products. In
            ``rows`` it decides how many completions share a row with their prompt; 0: one each.

    Raises:
        ValueError: a sequence is longer than ``max_tokens``, or has no prompt token that predicts its first token.
    """
    for sequence in sequences:
        _check(sequence, max_tokens)
    computed = sequences if computed is None else computed
    largest = min(max_tokens, -(-sum(sequence.num_tokens for sequence in computed) // (SHARES_PER_RANK * num_ranks)))
    bundles = bundle_by_prompt(computed, largest, break_even if layout == "rows" else 0)
    shares = [_cut(share, max_tokens, layout) for share in _balance(bundles, num_ranks)]
    # Every rank runs the same number of microbatches, or the collectives of the backward pass hang.
    num_microbatches = max(len(share) for share in shares)
    dummies: list[Rows] = [[]] * (num_microbatches - len(shares[rank]))
    kept = [sequence for sequence in sequences if not sequence.is_masked]
    return Batch(
        microbatches=tuple(lay_out(rows) for rows in shares[rank] + dummies),
        total_tokens=max(1, sum(sequence.num_completion_tokens for sequence in kept)),
        total_completions=max(1, len(kept)),
        computed_tokens=sum(sequence.num_completion_tokens for sequence in computed),
        knows_old_logprobs=all(sequence.old_logprobs is not None for sequence in computed),
    )


def _check(sequence: TrainingSequence, max_tokens: int) -> None:
    if sequence.num_tokens > max_tokens:
        shorter = "use shorter prompts" if sequence.num_prompt_tokens >= max_tokens else "sample shorter completions"
        raise ValueError(
            f"a sequence has {sequence.num_tokens} tokens, but learner.max_tokens_per_microbatch is {max_tokens}: "
            f"raise it to at least {sequence.num_tokens}, or {shorter}"
        )
    if sequence.num_prompt_tokens == 0:
        raise ValueError("a sequence has an empty prompt: nothing predicts its first token; give it a prompt token")


def _balance(bundles: Sequence[PromptBundle], num_ranks: int) -> list[list[PromptBundle]]:
    """Distribute the bundles by longest processing time: longest first, each to the rank with the fewest tokens."""
    shares: list[list[PromptBundle]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for bundle in sorted(bundles, key=lambda bundle: -bundle.num_tokens):
        rank = loads.index(min(loads))
        shares[rank].append(bundle)
        loads[rank] += bundle.num_tokens
    return shares


def _cut(bundles: Sequence[PromptBundle], max_tokens: int, layout: PackingLayout) -> list[Rows]:
    """Cut bundles, sorted longest first, into microbatches, so that a microbatch has rows of similar length."""
    microbatches: list[list[PromptBundle]] = []
    for bundle in bundles:
        last = microbatches[-1] if microbatches else []
        if layout == "rows":
            tokens = (len(last) + 1) * last[0].num_tokens if last else 0
        else:
            tokens = sum(other.num_tokens for other in last) + bundle.num_tokens
        if last and tokens <= max_tokens:
            last.append(bundle)
        else:
            microbatches.append([bundle])
    return [[[bundle] for bundle in group] if layout == "rows" else [group] for group in microbatches]
