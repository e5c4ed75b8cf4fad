"""Weights that are not finite are never saved, exported or loaded, and the gate calls them by their name."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from learner.backend.finiteness import PIECE, non_finite
from learner.learner import Learner
from learner.parity import NonFiniteError, ParityError, check_finite
from orchestrator.records.checkpoints import Checkpoints
from tests.learner.model.test_lora import LORA
from tests.support.learners import assert_close, start, weights_of
from tests.support.tiny import MODEL, learner_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.filterwarnings("ignore:.*torch.distributed:FutureWarning")]


def spoil(learner: Learner, groups) -> None:
    """Let one optimizer step make NaN of every weight that is trained, out of finite gradients."""
    step = learner._backend.optim_step
    learner._backend.optim_step = lambda learning_rate: step(torch.nan)
    learner.update(2, groups)
    learner._backend.optim_step = step


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        *[({"zero_stage": stage}, MODEL) for stage in (0, 1, 2, 3)],
        ({"zero_stage": 1}, MODEL.model_copy(update={"dtype": "bfloat16"})),
        ({"zero_stage": 3}, MODEL.model_copy(update={"dtype": "bfloat16"})),
        ({"zero_stage": 2, "offload_optimizer": True}, MODEL),
        ({"zero_stage": 1}, LORA),
    ],
)
def test_nan_never_reaches_a_checkpoint_and_the_last_good_one_stays(
    folder, groups, settings, model, tmp_path: Path
) -> None:
    learner = start(folder, learner_config(**settings), model)
    checkpoints = Checkpoints(tmp_path, keep=1)
    learner.update(1, groups)
    checkpoints.save(1, learner, {"position": 6})
    saved = weights_of(learner)
    spoil(learner, groups)
    with pytest.raises(NonFiniteError, match=r"the policy holds NaN or infinity, in model\..* It was not saved\."):
        checkpoints.save(2, learner, {"position": 12})
    with pytest.raises(NonFiniteError, match="It was not exported"):
        learner.export(tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]

    resumed = start(folder, learner_config(**settings), model)
    latest = checkpoints.verify_latest()
    assert (latest.step, latest.prompts) == (1, {"position": 6})
    resumed.load(latest.learner_folder)
    assert_close(weights_of(resumed), saved, atol=0)


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_a_moment_that_is_not_finite_is_not_saved_either(folder, groups, zero_stage, tmp_path) -> None:
    """The weights of now are finite, and those of after the next step would not be."""
    learner = start(folder, learner_config(zero_stage=zero_stage))
    learner.update(1, groups)
    optimizer = learner._backend.engine.optimizer
    state = getattr(optimizer, "optimizer", optimizer).state
    next(iter(state.values()))["exp_avg"].view(-1)[-1] = torch.inf
    with pytest.raises(NonFiniteError, match="in the optimizer's exp_avg on rank 0"):
        learner.save(tmp_path / "learner")
    assert not (tmp_path / "learner").exists()


def test_the_gate_says_not_finite_and_not_that_weights_are_stale(folder, groups) -> None:
    learner = start(folder, learner_config())
    spoil(learner, groups)
    with pytest.raises(
        NonFiniteError, match=r"^step 3: logprobs are not finite.*since an earlier update \(model"
    ) as at:
        learner.update(3, groups)
    error = pickle.loads(pickle.dumps(at.value))
    assert not isinstance(error, ParityError) and "stale" not in str(error) and "learner.learning_rate" in str(error)


def test_logprobs_of_finite_weights_that_are_not_finite_are_an_overflow() -> None:
    check_finite({"logprob_gap": 0.1}, 1, list)
    with pytest.raises(
        NonFiniteError, match=r"step 1: logprobs are not finite.*the weights are finite, so the forward"
    ):
        check_finite({"logprob_gap": torch.nan}, 1, list)


def test_a_checkpoint_or_a_model_that_is_not_finite_is_not_loaded(folder, groups, tmp_path, monkeypatch) -> None:
    learner = start(folder, learner_config())
    spoil(learner, groups)
    with monkeypatch.context() as context:  # as earlier versions saved it
        context.setattr(type(learner._backend), "prove_finite", lambda *_: None)
        learner.save(tmp_path / "learner")
        learner.export(tmp_path / "model")
    with pytest.raises(NonFiniteError, match=r"checkpoint in .*learner holds NaN.*Remove the checkpoint's folder"):
        start(folder, learner_config()).load(tmp_path / "learner")
    with pytest.raises(NonFiniteError, match=r"the model in .* holds NaN or infinity.*Set model.path to another"):
        start(tmp_path / "model", learner_config())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_element_is_found_wherever_it_is(bad: float) -> None:
    whole = torch.zeros(PIECE + 7, dtype=torch.bfloat16)
    for place in (0, PIECE - 1, PIECE, PIECE + 6):
        spoiled = whole.clone()
        spoiled[place] = bad
        assert non_finite([("whole", whole), ("spoiled", spoiled), ("empty", torch.zeros(0))]) == ["spoiled"]
    assert non_finite([("large", torch.full((10,), torch.finfo(torch.float32).max))]) == []
