"""Memory, time and exactness of the scores of tokens, against the plain way, which holds all logits at once.

`python -m benchmarks.speed.logprob_memory`. Each way runs in a process of its own, one after the other: the plain one
needs 12 GiB at the default size. Memory is the process's peak beyond what it must hold: the head's weight, the hidden
states, in the backward pass their gradients too, and the reference's weight and hidden states. Gradients are judged by
those of the plain way in float64, a few tokens at a time, which takes most of the benchmark's time on a CPU. Exit with
1 if a chunked way breaks a limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.speed.peak_memory import in_new_process, peak_memory, restart_peak
from learner.model.logprobs import TokenScores, token_scores

WAYS = ("plain", "chunked", "chunked with KL")
WAYS_IN_FLOAT64 = {"plain": "exact", "chunked": "exact", "chunked with KL": "exact with KL"}
MEMORY_LIMIT = 400
"""MiB."""
ERROR_LIMIT = 1e-5
"""Of the gradient's largest entry."""


class Size(NamedTuple):
    vocab: int
    tokens: int
    hidden: int


class Measurement(NamedTuple):
    memory: float
    """MiB."""
    seconds: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("vocab", 151_936), ("tokens", 4096), ("hidden", 896)):
        arguments.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    given = arguments.parse_args()
    size = Size(given.vocab, given.tokens, given.hidden)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in (*WAYS, *WAYS_IN_FLOAT64.values())}
        measured = {way: in_new_process(measure, way, size, given.device, files[way]) for way in WAYS}
        for name in set(WAYS_IN_FLOAT64.values()):
            in_new_process(save_exact_gradients, name, size, given.device, files[name])
        errors = {way: largest_difference(files[way], files[WAYS_IN_FLOAT64[way]]) for way in WAYS}
        difference = largest_difference(files["chunked"], files["plain"])
    report(size, given.device, measured, errors)
    print(f"gradients of plain and chunked differ by  {difference:.1e}")
    sys.exit(any(measured[way].memory > MEMORY_LIMIT or errors[way] > ERROR_LIMIT for way in WAYS[1:]))


def report(size: Size, device: str, measured: dict[str, Measurement], errors: dict[str, float]) -> None:
    print(f"vocabulary {size.vocab:,}, {size.tokens:,} tokens, hidden {size.hidden}, float32, {device}")
    print("forward and backward   MiB beyond   seconds   largest error of a gradient, of its largest entry")
    for way, (memory, seconds) in measured.items():
        print(f"  {way:<18} {memory:12.0f} {seconds:9.1f}   {errors[way]:.1e}")
    print(f"limits of the chunked  {MEMORY_LIMIT:10}             {ERROR_LIMIT:.1e}")


def measure(way: str, size: Size, device: str, gradients: Path) -> Measurement:
    """Memory and time of one way; its gradients go to the file `gradients`."""
    hidden, weight, targets, upstream, reference = inputs(way, size, device)
    before = restart_peak(device)
    started = time.perf_counter()
    scores = (
        plain_scores(hidden, weight, targets)
        if way == "plain"
        else token_scores(hidden, weight, targets, temperature=1, reference=reference)
    )
    forward = peak_memory(device) - before
    loss = weighted_sum(scores, upstream)
    del scores
    grads = torch.autograd.grad(loss, (hidden, weight))
    # The gradients' share is taken off the backward pass only: the forward pass holds none.
    memory = max(forward, peak_memory(device) - before - sum(grad.nbytes for grad in grads))
    seconds = time.perf_counter() - started
    torch.save(grads, gradients)
    return Measurement(memory / 2**20, seconds)


def save_exact_gradients(way: str, size: Size, device: str, gradients: Path) -> None:
    """The plain way in float64, with so few tokens at a time that it fits; the gradients go to a file, as float32."""
    hidden, weight, targets, upstream, reference = inputs(way, size, device, torch.float64)
    for few in torch.arange(size.tokens, device=device).split(64):
        part = None if reference is None else (reference[0][few], reference[1])
        weighted_sum(plain_scores(hidden[few], weight, targets[few], part), upstream[:, few]).backward()
    torch.save([tensor.grad.float() for tensor in (hidden, weight) if tensor.grad is not None], gradients)


def inputs(
    way: str, size: Size, device: str, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """Return hidden states, head weight, targets, gradients by the scores, and a reference; the same for every way."""
    random = torch.Generator(device).manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=random, device=device).mul_(scale).to(dtype)

    # Logits get a standard deviation of 3: about as far from a uniform distribution as those of a trained model.
    hidden = normal(size.tokens, size.hidden)
    weight = normal(size.vocab, size.hidden, scale=3 * size.hidden**-0.5)
    targets = torch.randint(size.vocab, (size.tokens,), generator=random, device=device)
    upstream, reference = normal(3, size.tokens), None
    if way.endswith("with KL"):
        reference = hidden.clone(), normal(size.vocab, size.hidden, scale=0.01).add_(weight)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, upstream, reference


def plain_scores(
    hidden: Tensor, weight: Tensor, targets: Tensor, reference: tuple[Tensor, Tensor] | None = None
) -> TokenScores:
    log_p = (hidden @ weight.T).log_softmax(-1)
    logprobs, entropy = log_p.gather(1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
    if reference is None:
        return TokenScores(logprobs, entropy, None)
    log_q = (reference[0] @ reference[1].T).log_softmax(-1)
    return TokenScores(logprobs, entropy, (log_p.exp() * (log_p - log_q)).sum(-1))


def weighted_sum(scores: TokenScores, upstream: Tensor) -> Tensor:
    given = torch.stack([score for score in scores if score is not None])
    return (given * upstream[: len(given)]).sum()


def largest_difference(ours: Path, theirs: Path) -> float:
    """Of the gradients in two files, relative to the largest entry of the same gradient in the second."""
    pairs = zip(*(torch.load(file, map_location="cpu") for file in (ours, theirs)), strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


if __name__ == "__main__":
    main()
