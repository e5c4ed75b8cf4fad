"""The variables of a generator's process, which libraries read when they are imported."""

from rollout.actor import environment
from rollout.config import RolloutConfig


def test_triton_multiplies_float32_as_the_learner_does() -> None:
    """Its own default on newer cards is TF32, whose 10 bits would show as a gap between sampler and learner."""
    assert environment(RolloutConfig())["TRITON_F32_DEFAULT"] == "ieee"
