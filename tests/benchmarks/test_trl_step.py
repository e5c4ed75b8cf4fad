"""The comparison of a step with TRL's: what its process writes."""

from benchmarks.peers.trl_step import STEP, Step, parse_step


def test_only_the_peers_own_lines_are_steps() -> None:
    assert parse_step(f"{STEP}[120.5, 4096, 0.25]\n") == Step(120.5, 4096, 0.25)
    assert parse_step("[transformers] `use_cache` is not compatible with gradient checkpointing\n") is None
    assert parse_step("\n") is None
