"""Convert a model in GGUF, the format of llama.cpp, to a Hugging Face folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import gguf
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.gguf import GGUF_CONFIG_ARCHS, read_gguf_metadata
from transformers.modeling_gguf_pytorch_utils import (
    GGUF_SUPPORTED_ARCHITECTURES,
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
)

from learner.model.folder import save_model

MAGIC = b"GGUF"
MEND = "Download the file again, or give the model's Hugging Face folder"
OTHER = "This project cannot convert it: give the model's Hugging Face folder"
TEXT = "What is 7 + 5? It is 12, naïvely (n² − 4)."
"""The text on which the converted model is compared with the original."""
ARCHITECTURES = {*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_CONFIG_ARCHS} - {"general", "tokenizer"}
MAX_DIFFERENCE = 1e-4
"""Largest difference of two logits. The weights are the same; only the order of sums may differ."""
BLOCK = re.compile(r"(?:^|\.)blk\.(\d+)\.")
MAX_WEIGHTS_PER_BYTE = 8
"""Every format stores a weight in at least one bit. A file that claims more is damaged, or meant to fill the memory."""
SPLIT_EXPERTS = ("_exps.", "_projs.")
"""Parts of the names of tensors that transformers splits into several with other names."""
NAMED = 3
"""Number of names that a message lists."""


class GgufError(ValueError):
    """The file cannot be converted; the message names the file and the fix."""


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to `folder`, dequantized to float32.

    It checks that the folder's model computes the same logits as the file's model in transformers, and that its
    tokenizer makes the same tokens. Quantized weights keep their rounding errors: the model is not the one before
    quantization.

    Raises:
        GgufError: the file is not GGUF, is truncated, is one part of a split file, lacks weights, has weights that
            transformers ignores, or has an architecture that transformers cannot read.
        OSError: writing failed.
    """
    with parsed_once():
        config = gguf_config(file)
        with link_in_own_folder(file) as link, refused(file):
            check_size(file, config)
            # Any, because its type is that of a call without output_loading_info, which returns only the model.
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                link.parent, config=config, gguf_file=str(link), dtype=torch.float32, output_loading_info=True
            )
            model, info = loaded
            tokenizer = AutoTokenizer.from_pretrained(link.parent, gguf_file=str(link))
        check_weights(file, model, info)
    save_model(_without_quantization(model), tokenizer, folder)
    check_converted(file, folder, model, tokenizer)


def gguf_config(file: Path) -> PreTrainedConfig:
    """Return the config of the model in a GGUF file, checked against the file's size. No weights are read.

    Raises GgufError as `convert_gguf` does.
    """
    check_header(file)
    with link_in_own_folder(file) as link, refused(file):
        # This reader refuses counts that are larger than the file. AutoConfig's reader would loop over them.
        metadata, names = read_gguf_metadata(str(link))
        check_claims(file, metadata, names)
        return AutoConfig.from_pretrained(link.parent, gguf_file=str(link))


@contextmanager
def link_in_own_folder(file: Path) -> Iterator[Path]:
    """Yield a link to the file in a temporary folder without other files.

    Otherwise transformers reads the weights from a file of the same name in the working directory, if there is one, and
    tokenizer settings from other files next to it.
    """
    with TemporaryDirectory() as folder:
        link = Path(folder) / file.name
        link.symlink_to(file.resolve())
        yield link


@contextmanager
def parsed_once() -> Iterator[None]:
    """Let transformers parse a file once. It would parse it for each step, and list all names for each module."""
    reader_of = functools.cache(gguf.GGUFReader)
    with (
        patch.object(gguf, "GGUFReader", lambda path: reader_of(Path(path).resolve())),
        patch.object(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
    ):
        yield


@contextmanager
def refused(file: Path) -> Iterator[None]:
    """Raise GgufError if a library raises any exception for the file."""
    try:
        yield
    except GgufError:
        raise
    except Exception as error:
        raise GgufError(
            f"{file} cannot be read ({_first_line(error)}): it is cut off, or transformers does not support it. "
            f"Architectures that transformers reads are {', '.join(sorted(ARCHITECTURES))}. {MEND}"
        ) from error


def check_header(file: Path) -> None:
    """Raise GgufError if the file does not start with GGUF's magic bytes."""
    with file.open("rb") as stream:
        start = stream.read(len(MAGIC))
    if start != MAGIC:
        raise GgufError(f"{file} is not a GGUF file: it starts with {start!r}, not {MAGIC!r}. Download it again")


def check_claims(file: Path, metadata: Mapping[str, Any], names: Collection[str]) -> None:
    """Raise GgufError for a part of a split file, missing blocks, or scaled positions, which transformers ignores."""
    architecture = metadata["general.architecture"]
    if (parts := metadata.get("split.count", 1)) > 1:
        raise GgufError(
            f"{file} is one of {parts} parts: join them with llama.cpp's `llama-gguf-split --merge`, or give the "
            "model's Hugging Face folder"
        )
    if not names:
        raise GgufError(f"{file} has no weights: it is truncated, or only a vocabulary. {MEND}")
    blocks = {found[1] for name in names if (found := BLOCK.search(name))}
    if (claimed := metadata.get(f"{architecture}.block_count", 0)) > len(blocks):
        raise GgufError(f"{file} claims {claimed:,} blocks but has {len(blocks)}: it is incomplete. {MEND}")
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none" and metadata.get(f"{architecture}.rope.scaling.factor", 1.0) != 1.0:
        raise GgufError(
            f"{file} scales positions ({scaling}), which transformers ignores in GGUF files: give the model's Hugging "
            "Face folder"
        )


def check_size(file: Path, config: PreTrainedConfig) -> None:
    """Raise GgufError if the file is too small for the model that its header claims."""
    with torch.device("meta"):
        claimed = sum(weights.numel() for weights in AutoModelForCausalLM.from_config(config).parameters())
    if claimed > MAX_WEIGHTS_PER_BYTE * file.stat().st_size:
        raise GgufError(f"{file} claims {claimed:,} weights, which do not fit into it: it is damaged. {MEND}")


def check_weights(file: Path, model: PreTrainedModel, info: Mapping[str, Any]) -> None:
    """Raise GgufError if the file lacks weights of the model, or has other weights.

    transformers silently replaces missing weights by random ones, and ignores other weights.
    """
    if lacking := sorted(info["missing_keys"]):
        raise GgufError(f"{file} lacks {_listed(lacking)}: it is incomplete. {MEND}")
    metadata, names = read_gguf_metadata(str(file))
    if metadata["general.architecture"] in GGUF_CONFIG_ARCHS:
        unused = sorted(info["unexpected_keys"])
    else:
        processor = TENSOR_PROCESSORS.get(metadata["general.architecture"], TensorProcessor)()
        known = get_gguf_hf_weights_map(model, processor)
        unused = [name for name in names if name not in known and not any(end in name for end in SPLIT_EXPERTS)]
    if unused:
        raise GgufError(
            f"{file} has {_listed(unused)}, which transformers ignores in a {type(model).__name__}, so that it would "
            "become a different model: give its Hugging Face folder"
        )


def check_converted(file: Path, folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise GgufError if the folder's model or tokenizer differs from the file's."""
    tokens = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    reloaded = AutoTokenizer.from_pretrained(folder)
    if reloaded(TEXT)["input_ids"] != tokens[0].tolist() or reloaded.eos_token_id != tokenizer.eos_token_id:
        raise GgufError(f"{file}: the tokenizer written to {folder} makes other tokens than the file's. {OTHER}")
    with torch.inference_mode():
        expected = model(tokens).logits
        if not expected.isfinite().all():
            raise GgufError(f"{file}: its weights give logits that are not finite, so it is damaged. {MEND}")
        converted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
    difference = (converted - expected).abs().max().item()
    if not difference <= MAX_DIFFERENCE:
        raise GgufError(
            f"{file}: the logits of the model written to {folder} differ by {difference:.2g} from the file's. {OTHER}"
        )


def _without_quantization(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model of the same weights that is not marked as quantized, because transformers cannot save that."""
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


def _listed(names: Collection[str]) -> str:
    first = ", ".join([*names][:NAMED])
    return f"{first} and {len(names) - NAMED} more" if len(names) > NAMED else first
