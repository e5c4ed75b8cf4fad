"""Which attention a learner takes, and that the plan says it."""

import importlib.metadata

import pytest

from learner.config import ModelConfig
from learner.model import attention
from learner.model.attention import decide_attention
from orchestrator.config.recipe import load
from orchestrator.plan.run_plan import plan

BF16 = ModelConfig(path="model")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch):
    """Sets the version of flash-attn that is found; None: it is not installed."""

    def at(number: str | None) -> None:
        def version(name: str) -> str:
            if name != "flash-attn" or number is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return number

        monkeypatch.setattr(attention, "version", version)

    return at


@pytest.mark.parametrize(
    ("model", "on_gpu", "version", "name", "why"),
    [
        (BF16, True, "2.8.3.post2", "flash_attention_2", "flash-attn 2.8.3.post2"),
        (BF16, True, None, "sdpa", "not installed"),
        (BF16, True, "2.1.0", "sdpa", "2.1.0 is older than 2.3.3"),
        (BF16, False, "2.8.3", "sdpa", "no GPU"),
        (ModelConfig(path="model", dtype="float32"), True, "2.8.3", "sdpa", "does not support float32"),
        (ModelConfig(path="model", attention="sdpa"), True, "2.8.3", "sdpa", "as the recipe says"),
        (ModelConfig(path="model", attention="flash_attention_2"), True, None, "flash_attention_2", "recipe"),
        (ModelConfig(path="model", attention="flex_attention"), True, None, "flex_attention", "as the recipe says"),
        (ModelConfig(path="model", attention="flex_attention"), False, None, "sdpa", "no backward pass on the CPU"),
    ],
)
def test_auto_takes_flash_attention_where_it_can_compute(installed, model, on_gpu, version, name, why) -> None:
    installed(version)
    found = decide_attention(model, on_gpu=on_gpu)
    assert found.name == name and why in found.reason


@pytest.mark.parametrize(
    ("mode", "version", "line"),
    [
        ("colocated", "2.8.3", "flash_attention_2 on the learner (flash-attn 2.8.3)"),
        ("auto", "2.8.3", "flash_attention_2 on the learner (flash-attn 2.8.3, if it gets a GPU)"),
        ("colocated", None, "sdpa on the learner (flash-attn is not installed)"),
        ("cpu", "2.8.3", "sdpa on the learner (no GPU)"),
    ],
)
def test_the_plan_says_which_attention_a_run_gets(installed, mode, version, line) -> None:
    installed(version)
    assert dict(plan(load("countdown-4090", [f"placement.mode={mode}"])))["attention"] == line


def test_transformers_takes_no_older_version_than_we_do() -> None:
    """So that `auto` never chooses what the model then refuses."""
    import inspect

    from transformers.utils.import_utils import is_flash_attn_2_available

    oldest = ".".join(map(str, attention.OLDEST_FLASH))
    assert f'version.parse("{oldest}")' in inspect.getsource(is_flash_attn_2_available)
