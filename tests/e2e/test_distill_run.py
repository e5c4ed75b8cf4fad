"""A whole run in which a policy of random weights is taught by a warm-started model, interrupted and resumed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.test_run import FOUR_STEPS
from tests.support.commands import Workplace
from tests.support.paths import WARM_START

pytestmark = [pytest.mark.slow, pytest.mark.long]

DISTILL = [
    "warm_start.num_steps=0",
    f"model.teacher={WARM_START}",
    "learner.algorithm.preset=distill",
    "learner.learning_rate=3e-3",
    "learner.lr_schedule=constant",
    "learner.warmup_steps=0",
    "checkpoint.every_steps=1",
    "num_steps=32",
]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, shared_cluster) -> Workplace:
    folder = tmp_path_factory.mktemp("distill")
    return Workplace(folder, "train", "countdown-tiny", *FOUR_STEPS, *DISTILL, environment=shared_cluster)


def test_the_policy_comes_nearer_to_its_teacher(workplace: Workplace) -> None:
    assert workplace.stop_after("taught", 1, signal.SIGTERM) == 130
    assert "resuming run 'taught'" in workplace.succeed("taught")
    kls = [line["optim/kl_exact"] for line in workplace.metrics("taught")[1:]]
    assert len(kls) == 32
    # It rises at first, as the policy comes to write what its teacher has never seen; plain PyTorch does the same.
    assert sum(kls[-4:]) / 4 < 0.9 * kls[0]
    known: dict = json.loads((Path(workplace.run("taught")) / "fingerprints.json").read_text())
    assert "model.safetensors" in known["models"]["the teacher"]
