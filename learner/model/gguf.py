"""Convert a model in GGUF, the format of llama.cpp, to a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from learner.model.folder import save_model

MAGIC = b"GGUF"
TEXT = "What is 7 + 5? It is 12, naïvely (n² − 4)."
"""What the converted model is compared on."""
ARCHITECTURES = {*GGUF_SUPPORTED_ARCHITECTURES} - {"general", "tokenizer"}
MAX_DIFFERENCE = 1e-4
"""Largest difference of two logits. The weights are the same, so that only the order of sums may differ."""


class GgufError(ValueError):
    """The file cannot be converted; the message names the file and what to do."""


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to `folder`, dequantized to float32.

    The folder's model is proven to compute the logits that transformers computes from the file itself, and its
    tokenizer to make the same tokens. Quantized weights stay what quantization left of them: this is not the model that
    was quantized.

    Raises:
        GgufError: a file that is none, is cut off, or is of an architecture that transformers does not read.
        OSError: the disk refuses.
    """
    check_header(file)
    try:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:
        raise GgufError(
            f"{file} cannot be read ({_first_line(error)}): it is cut off, or of a kind that transformers does not "
            f"read. Architectures that it reads are {', '.join(sorted(ARCHITECTURES))}. Download the file again, or "
            "give the model's Hugging Face folder"
        ) from error
    save_model(_without_quantization(model), tokenizer, folder)
    check_converted(file, folder, model, tokenizer)


def check_header(file: Path) -> None:
    """Raise GgufError where the file does not begin as GGUF does."""
    with file.open("rb") as opened:
        start = opened.read(len(MAGIC))
    if start != MAGIC:
        raise GgufError(f"{file} is not a GGUF file: it starts with {start!r}, not {MAGIC!r}. Download it again")


def check_converted(file: Path, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise GgufError where the folder does not hold the model and the tokenizer that were read of the file."""
    tokens = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    reloaded = AutoTokenizer.from_pretrained(folder)
    if reloaded(TEXT)["input_ids"] != tokens[0].tolist() or reloaded.eos_token_id != tokenizer.eos_token_id:
        raise GgufError(f"{file}: the tokenizer written to {folder} makes other tokens than the file's own")
    with torch.inference_mode():
        expected = model(tokens).logits
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
    difference = (found - expected).abs().max().item()
    if not difference <= MAX_DIFFERENCE:
        raise GgufError(f"{file}: the logits of the model written to {folder} differ by {difference:.2g} from its own")


def _without_quantization(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same weights that does not count as quantized, which could not be saved."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    with torch.device("meta"):
        plain = type(model)(type(model.config).from_dict(settings))
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
