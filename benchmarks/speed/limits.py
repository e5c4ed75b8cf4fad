"""What a machine's rate of matrix products and its memory bandwidth allow for a step, as a floor of its seconds.

Counted is what must be computed: each prompt once for its group, the LM head where a token is sampled or trained, and
for the update only groups whose rewards differ. A product of matrices (m, k) and (k, n) has ``2 m k n`` operations; the
backward pass has twice those of the forward pass. Left out, since small at these lengths: norms, softmax, embeddings.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from rollout.types.model_shape import ModelShape

SECONDS = 1.0
"""How long each rate is measured."""
PRODUCTS = ((2048, 2048, 2048), (2048, 576, 1536), (1024, 4096, 1024))
"""Shapes (m, k, n) of the products; the fastest counts."""
COPIED_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Rates:
    """What a machine can do, measured on all of its cores."""

    operations_per_s: float
    """Of matrix products in float32."""
    bytes_per_s: float
    """Read and written by a copy that no cache holds."""

    def __str__(self) -> str:
        return f"{self.operations_per_s / 1e9:.0f} GFLOP/s in float32, {self.bytes_per_s / 1e9:.1f} GB/s"


@dataclass(frozen=True, slots=True)
class GroupLengths:
    """Tokens of a group."""

    prompt: int
    completions: Sequence[int]
    is_trained: bool
    """False where all rewards are the same: the group has no gradient."""


def measure_rates() -> Rates:
    """Measure this machine."""
    torch.set_num_threads(os.cpu_count() or 1)
    products = []
    for rows, inner, columns in PRODUCTS:
        left, right = torch.randn(rows, inner), torch.randn(inner, columns)
        products.append(2 * rows * inner * columns * calls_per_s(partial(torch.matmul, left, right)))
    source = torch.zeros(COPIED_BYTES // 4)
    target = torch.empty_like(source)
    return Rates(max(products), 2 * COPIED_BYTES * calls_per_s(partial(target.copy_, source)))


def calls_per_s(call: Callable[[], object]) -> float:
    call()
    start, calls = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < SECONDS:
        call()
        calls += 1
    return calls / seconds


def rollout_floor(shape: ModelShape, groups: Sequence[GroupLengths], rates: Rates) -> float:
    """Return the least seconds in which the groups could be sampled.

    Every weight is read once for each token of the longest completion, as all completions are sampled at once.
    """
    completions = [tokens for group in groups for tokens in group.completions]
    operations = sum(forward_operations(shape, group) for group in groups)
    read = 4 * shape.num_parameters * max(completions, default=0)
    return max(operations / rates.operations_per_s, read / rates.bytes_per_s)


def update_floor(shape: ModelShape, groups: Sequence[GroupLengths], rates: Rates) -> float:
    """Return the least seconds of a forward and a backward pass over the groups that are trained."""
    return sum(3 * forward_operations(shape, group) for group in groups if group.is_trained) / rates.operations_per_s


def forward_operations(shape: ModelShape, group: GroupLengths) -> int:
    """Return the operations of one forward pass over a prompt and the completions that share it."""
    block = sum(math.prod(size) for size in shape.linears.values())
    tokens = group.prompt + sum(group.completions)
    # Each position attends to those before it: n prompt positions to n² / 2, those of a completion to the prompt too.
    attended = group.prompt**2 / 2 + sum(count * (group.prompt + count / 2) for count in group.completions)
    attention = 4 * shape.query_size * attended  # scores, and the sum of values
    head = shape.vocab_size * shape.hidden_size * sum(group.completions)
    return round(2 * (shape.num_layers * block * tokens + head) + shape.num_layers * attention)


def group_lengths(records: Sequence[Mapping[str, object]], prompt_tokens: Callable[[str], int]) -> list[GroupLengths]:
    """Return the groups of a step, from the records that a run keeps of its completions."""
    groups: dict[str, list[Mapping[str, object]]] = {}
    for record in records:
        groups.setdefault(str(record["prompt_id"]), []).append(record)
    return [
        GroupLengths(
            prompt_tokens(str(group[0]["prompt"])),
            [len(record["token_ids"]) for record in group],  # type: ignore[arg-type]
            any(record["advantage"] for record in group),
        )
        for group in groups.values()
    ]
