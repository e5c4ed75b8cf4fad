"""A GGUF file becomes a Hugging Face folder of the same model, or one sentence says why not."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.model import gguf
from learner.model.gguf import GgufError, convert_gguf
from tests.support.gguf_files import llama, write_gguf


def test_the_folder_computes_what_the_model_did_that_the_file_was_written_from(tmp_path: Path) -> None:
    model = llama()
    write_gguf(tmp_path / "tiny.gguf", model)
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")
    converted = AutoModelForCausalLM.from_pretrained(tmp_path / "folder")
    assert not hasattr(converted.config, "quantization_config") and converted.config.tie_word_embeddings
    tokens = torch.arange(20)[None] * 11
    with torch.inference_mode():
        torch.testing.assert_close(converted(tokens).logits, model(tokens).logits, atol=1e-5, rtol=1e-5)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<end>", 1)
    text = "an naïve answer: 7 − 5"
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert encoded[0] == 258 and len(encoded) == len(text.encode()) - 2  # "an" is one token, twice
    assert tokenizer.decode(encoded) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


def test_files_that_are_none_or_cut_off_or_of_an_unknown_architecture(tmp_path: Path) -> None:
    write_gguf(tmp_path / "good.gguf", llama())
    content = (tmp_path / "good.gguf").read_bytes()
    (tmp_path / "none.gguf").write_bytes(b"PK\x03\x04" + content[4:])
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "cut.gguf").write_bytes(content[: len(content) // 2])
    (tmp_path / "header.gguf").write_bytes(content[:30])
    write_gguf(tmp_path / "lamma.gguf", llama(), architecture="lamma")
    for name, said in {
        "none": r"none\.gguf is not a GGUF file: it starts with b'PK",
        "empty": r"empty\.gguf is not a GGUF file",
        "cut": r"cut\.gguf cannot be read .*cut off.* Download the file again",
        "header": r"header\.gguf cannot be read",
        "lamma": r"lamma\.gguf cannot be read .*lamma.*reads are .*llama, .*qwen2",
    }.items():
        with pytest.raises(GgufError, match=said):
            convert_gguf(tmp_path / f"{name}.gguf", tmp_path / "folder")


def test_a_folder_of_other_logits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama())
    monkeypatch.setattr(gguf, "_without_quantization", lambda model: llama(seed=1))
    with pytest.raises(GgufError, match=r"the logits of the model written to .* differ by"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")
