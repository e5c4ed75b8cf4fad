"""Paths of models on the nodes of a cluster."""

from pathlib import Path

import pytest

from learner.actor import LearnerRank
from learner.config import LearnerConfig
from rollout.actor import Generator
from rollout.config import RolloutConfig
from rollout.types.paths import refuse_missing_model
from rollout.types.sampling import EngineSpec
from tests.support.tiny import MODEL


def test_a_folder_that_is_there_and_a_hubs_name_are_taken(tmp_path: Path) -> None:
    refuse_missing_model(str(tmp_path))
    refuse_missing_model("Qwen/Qwen3-0.6B")


def test_a_node_that_joined_without_the_models_folder_says_so(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=rf"^node .* has no folder {gone}, where the model is: mount there"):
        Generator(EngineSpec(gone, "float32", 64, load_weights=True), RolloutConfig())
    with pytest.raises(FileNotFoundError, match=rf"has no folder {gone}"):
        LearnerRank.start(
            *(LearnerRank.__new__(LearnerRank), LearnerConfig(learning_rate=1e-3), MODEL, gone),
            **{"rank": 0, "master": ("127.0.0.1", 1)},
            **{"num_steps": 1, "temperature": 1.0, "max_completion_tokens": 8},
        )
