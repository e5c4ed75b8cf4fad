"""Make requests to vLLM, and read its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from rollout.types.completions import Logprobs
from rollout.types.sampling import SamplingSettings


def sampling_params(
    sampling: SamplingSettings,
    group_size: int,
    seed: int,
    *,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
) -> SamplingParams:
    """Return vLLM's parameters for one whole group, which is returned once, when finished.

    Args:
        max_tokens: in place of the settings' limit.
        stop: texts that end it, beside the settings' own.
    """
    stops = [*sampling.stop, *stop]
    return SamplingParams(
        n=group_size,
        temperature=sampling.temperature,
        max_tokens=sampling.max_completion_tokens if max_tokens is None else max_tokens,
        seed=seed,
        logprobs=0,  # the sampled token's own, no alternatives
        flat_logprobs=True,
        stop=stops,
        include_stop_str_in_output=True,
        detokenize=bool(stops),
        skip_special_tokens=False,  # `</answer>` may be one, and stops the model all the same
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def sampled_logprobs(output: Any) -> Logprobs:
    """Return the sampled tokens' logprobs of one of vLLM's CompletionOutputs, shape [T]."""
    flat = output.logprobs
    # At each position the sampled token comes first.
    return np.asarray(flat.logprobs, dtype=np.float32)[np.asarray(flat.start_indices, dtype=np.int64)]


def versions_of(output: Any) -> tuple[int, ...]:
    """Return the policy versions that sampled the tokens of one of vLLM's CompletionOutputs, oldest first."""
    # The labels that VersionedEngine gave to its weights, each with the tokens that it sampled.
    return tuple(int(span.version) for span in output.weight_versions)
