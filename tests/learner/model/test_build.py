from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.model.build import build_model
from tests.support.tiny import BUILD

TRACES = [
    "9+3=12, 12*7=84 off 51 no\n</think><answer>(9+3)*7</answer>",
    "Numbers: 3 7 9\nTarget: 33\n",
    "60-0=60 off 0 yes\n<|eos|>",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build_model(BUILD, 7, folder)
    return folder


@pytest.mark.parametrize("text", TRACES)
def test_text_round_trips_exactly(folder, text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_integer_is_one_token_and_the_longest_word_wins(folder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12 off 7")) == ["12", " off ", "7"]


@pytest.mark.parametrize("text", ["100", "007", "3?4", "3  off4x"])
def test_unknown_text_is_refused(folder, text: str) -> None:
    with pytest.raises(Exception, match="Missing"):
        AutoTokenizer.from_pretrained(folder).encode(text)


def test_the_folder_loads_and_depends_on_the_seed_alone(folder, tmp_path) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    build_model(BUILD, 7, tmp_path / "same")
    assert torch.equal(before, torch.get_rng_state())
    build_model(BUILD, 8, tmp_path / "other")
    model, same, other = (
        AutoModelForCausalLM.from_pretrained(path) for path in (folder, tmp_path / "same", tmp_path / "other")
    )
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
        assert weight.dtype == torch.float32
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.vocab_size == len(tokenizer) == 100 + len(BUILD.words) + 2
    assert model.config.model_type == "qwen3"


def test_deepspeed_is_not_imported_to_write_a_model(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and has nothing that could be imported of it."""
    empty = ModuleType("deepspeed")
    empty.__spec__ = ModuleSpec("deepspeed", None)
    monkeypatch.setitem(sys.modules, "deepspeed", empty)
    build_model(BUILD, 7, tmp_path / "built")
    assert (tmp_path / "built" / "model.safetensors").is_file()
