"""A GGUF file becomes a Hugging Face folder of the same model, or one sentence says why not."""

import struct
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.model import gguf
from learner.model.gguf import GgufError, convert_gguf, gguf_config
from tests.support.gguf_files import LAYER, llama, write_gguf


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
        "lamma": r"lamma\.gguf cannot be read .*lamma.*transformers reads are .*llama, .*qwen2",
    }.items():
        with pytest.raises(GgufError, match=said):
            convert_gguf(tmp_path / f"{name}.gguf", tmp_path / "folder")


def test_a_folder_of_other_logits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama())
    monkeypatch.setattr(gguf, "_without_quantization", lambda model: llama(seed=1))
    with pytest.raises(GgufError, match=r"the logits of the model written to .* differ by .* Hugging Face folder"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")


def test_weights_come_from_the_file_that_is_named_whatever_lies_in_the_working_folder(tmp_path, monkeypatch) -> None:
    for name, seed in (("meant", 0), ("here", 1)):
        (tmp_path / name).mkdir()
        write_gguf(tmp_path / name / "tiny.gguf", llama(seed))
    (tmp_path / "meant" / "tokenizer_config.json").write_text('{"tokenizer_class": "NoSuchTokenizer"}')
    monkeypatch.chdir(tmp_path / "here")
    convert_gguf(tmp_path / "meant" / "tiny.gguf", tmp_path / "folder")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "folder").state_dict()
    torch.testing.assert_close(dict(found), dict(llama(0).state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"without": ["blk.1.ffn_up.weight"]}, r"lacks model\.layers\.1\.mlp\.up_proj\.weight: it is incomplete"),
        ({"without": ["token_embd.weight"]}, r"lacks .*model\.embed_tokens\.weight"),
        ({"without": [f"blk.1.{name}.weight" for name in LAYER]}, "claims 2 blocks but has 1: it is incomplete"),
        ({"num_blocks": 2**31}, r"claims 2,147,483,648 blocks but has 2"),
        ({"claims": {"split.count": 3}}, "is one of 3 parts: join them with llama.cpp's `llama-gguf-split --merge`"),
        ({"beside": {"rope_freqs.weight": torch.ones(8)}}, "has rope_freqs.weight, which transformers ignores"),
        ({"beside": {"blk.0.attn_q.bias": torch.ones(32)}}, "has blk.0.attn_q.bias, which transformers ignores"),
        ({"claims": {".rope.scaling.type": "yarn", ".rope.scaling.factor": 4.0}}, r"scales positions \(yarn\)"),
        ({"claims": {".feed_forward_length": 2**30}}, "claims .* weights, which do not fit into it"),
    ],
)
def test_a_file_that_would_become_another_model_is_refused(given, said: str, tmp_path: Path) -> None:
    """Transformers makes up weights that are missing, and passes over what it has no place for, without a word."""
    write_gguf(tmp_path / "tiny.gguf", llama(), **given)
    with pytest.raises(GgufError, match=said):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_a_scaling_of_positions_that_changes_nothing_is_no_fault(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", llama(), claims={".rope.scaling.type": "none"})
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")


def header(*entries: tuple[str, int, bytes], tensors: int = 0, entry_count: int | None = None) -> bytes:
    counts = struct.pack("<IQQ", 3, tensors, len(entries) if entry_count is None else entry_count)
    for key, kind, value in entries:
        counts += struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value
    return b"GGUF" + counts


LLAMA = ("general.architecture", 8, struct.pack("<Q", 5) + b"llama")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "content",
    [
        header(LLAMA, ("a", 9, struct.pack("<IQ", 0, 2**50))),  # bytes
        header(LLAMA, ("a", 9, struct.pack("<IQ", 8, 2**50))),  # texts
        header(LLAMA, ("a", 9, struct.pack("<IQ", 9, 2**50) + struct.pack("<IQ", 9, 2**50))),
        header(LLAMA, ("a", 8, struct.pack("<Q", 2**63))),
        header(LLAMA, tensors=2**60),
        header(LLAMA, entry_count=2**60),
        header(LLAMA, ("llama.block_count", 4, struct.pack("<I", 2**31))),
        header(LLAMA, ("llama.block_count", 8, struct.pack("<Q", 1) + b"x")),
        header(("general.architecture", 4, struct.pack("<I", 1))),
        header(),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF",
    ],
)
def test_a_header_that_claims_anything_is_refused_at_once(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    for read in (gguf_config, lambda file: convert_gguf(file, tmp_path / "folder")):
        with pytest.raises(GgufError, match=r"a\.gguf "):
            read(tmp_path / "a.gguf")


def test_a_model_whose_weights_are_no_numbers_is_called_damaged(tmp_path: Path) -> None:
    model = llama()
    model.model.norm.weight.data[0] = float("nan")
    write_gguf(tmp_path / "tiny.gguf", model)
    with pytest.raises(GgufError, match="logits that are not finite, so it is damaged"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "folder")
