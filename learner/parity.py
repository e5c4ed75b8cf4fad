"""Prove that generators run the learner's weights: both give the same tokens equal, finite logprobs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from rollout.types.completions import Group

STALE_LIMIT = 1.0
"""Nats per token by which a policy of a few steps ago may differ. Another policy, or noise, differs by several."""
ADVICE = """\
The update was not applied. Likely causes, in the order to check them:
  - The generators run stale weights. Compare the policy versions above with the step: if they are older than
    max_staleness allows, a publish did not arrive; look for its error in the generators' logs.
  - The weights arrived but are not used: on CPUs a tied LM head's packed copy must be rebuilt after an update.
    Restart the generators; if the gap goes away, finish_weight_update does not rebuild every copy.
  - Sampler and learner use different distributions: sampling.temperature must be the same for both, top_p 1,
    top_k off, and vLLM's logprobs_mode "processed_logprobs".
  - Precision: the generator's dtype must be model.dtype. bfloat16 explains a mean gap of about 0.01 nats, not more; if
    every other cause is excluded, raise learner.max_logprob_gap."""

SMALLER_UPDATES = (
    "Start another run (name=…) with a lower learner.learning_rate or learner.max_grad_norm, or with model.dtype = "
    '"float32"; this run keeps all three'
)
NAMED = 3
"""Number of names that a message lists."""


class NonFiniteError(RuntimeError):
    """NaN or infinity in weights, gradients or logprobs. Can be pickled."""


class ParityError(RuntimeError):
    """Learner and sampler disagree on the sampled tokens. Contains the numbers; can be pickled."""

    def __init__(self, mean_gap: float, max_gap: float, limit: float, step: int, versions: tuple[int, ...]) -> None:
        super().__init__(mean_gap, max_gap, limit, step, versions)
        self.mean_gap = mean_gap
        self.max_gap = max_gap
        self.limit = limit
        self.step = step
        self.versions = versions

    def __str__(self) -> str:
        return (
            f"step {self.step}: learner and sampler logprobs differ by {self.mean_gap:.3g} nats a token on average, "
            f"{self.max_gap:.3g} at most; the limit on the average is {self.limit:.3g}. "
            f"Tokens were sampled by policy versions {list(self.versions)}.\n{ADVICE}"
        )


def check_parity(totals: Mapping[str, float], limit: float, step: int, versions: tuple[int, ...]) -> None:
    """Raise ParityError if the mean gap exceeds ``limit`` on tokens sampled on policy, or STALE_LIMIT on all tokens.

    ``totals`` are sums over tokens, from ``learner.algorithm.objective.mismatch_totals``.
    """
    gaps = [(totals["logprob_gap"] / totals["compared_tokens"], max(limit, STALE_LIMIT))]
    if totals["on_policy"]:
        gaps.insert(0, (totals["on_policy_gap"] / totals["on_policy"], limit))
    for mean_gap, allowed in gaps:
        # Not `mean_gap > allowed`, which is false for NaN.
        if not mean_gap <= allowed:
            raise ParityError(mean_gap, totals["logprob_gap_max"], allowed, step, versions)


def check_finite(totals: Mapping[str, float], step: int, non_finite_weights: Callable[[], Sequence[str]]) -> None:
    """Raise NonFiniteError if logprobs of learner or sampler are NaN or infinite. It names weights that are.

    ``totals`` as for ``check_parity``. ``non_finite_weights`` returns names; it is called only if logprobs are not
    finite.
    """
    if math.isfinite(totals["logprob_gap"]):
        return
    bad = non_finite_weights()
    cause = (
        f"the weights have contained NaN or infinity since an earlier update ({first_names(bad)}), which was too large"
        if bad
        else "the weights are finite, so the forward pass of the learner or of a generator overflows"
    )
    raise NonFiniteError(
        f"step {step}: logprobs are not finite, and the update was not applied; {cause}. {SMALLER_UPDATES}"
    )


def first_names(names: Sequence[str]) -> str:
    """Return the first few names and the number of the others, for a message."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def policy_versions(groups: Iterable[Group]) -> tuple[int, ...]:
    """Return every policy version that sampled a token of ``groups``, oldest first."""
    return tuple(
        sorted({v for group in groups for completion in group.completions for v in completion.policy_versions})
    )
