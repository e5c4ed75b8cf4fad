"""Fingerprint a model folder: hash small files completely, and large weights by header and parts of every tensor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from learner.backend.file_digests import file_digest

SUFFIXES = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".safetensors", ".bin"}
"""Suffixes of files that affect what a model computes or reads. Others, such as a README, may change."""
WHOLE_BYTES = 64 * 2**20
"""Files up to this size are read completely. Larger ones hold gigabytes, which would take a minute at every start."""
PIECE_BYTES = 4096
"""In a larger file, three pieces of this size are read from each tensor: its beginning, middle and end."""
MAX_HEADER_BYTES = 100 * 2**20
"""Longest header of a safetensors file, the limit of the reference implementation."""


def model_files(model: str) -> dict[str, str]:
    """Return a hash for each file of a model folder, by its name; for a model on the hub its commit, as `revision`.

    Empty if the model is not on this machine. For weights above WHOLE_BYTES, `sampled_digest` hashes only parts.
    Training changes all tensors and is noticed; a change of a few numbers may not be.
    """
    folder = Path(model)
    if not folder.is_dir():
        revision = hub_revision(model)
        return {"revision": revision} if revision else {}
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    return {file.name: digest_of(file) for file in files}


def hub_revision(model: str) -> str | None:
    """Return the commit of a hub model in the local cache, from which it is loaded; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(model, "config.json")
    return Path(file).parent.name if isinstance(file, str) else None


def digest_of(file: Path) -> str:
    """Return the size of a file and a hash of its content in hexadecimal."""
    size = file.stat().st_size
    if size <= WHOLE_BYTES:
        return file_digest(file)
    with file.open("rb") as opened:
        return f"{size}:{sampled_digest(opened, size, file.suffix == '.safetensors')}"


def sampled_digest(file: BinaryIO, size: int, has_header: bool) -> str:
    """Return a hash of the file's header and pieces of each tensor; without a header, of evenly spaced pieces."""
    sha = hashlib.sha256()
    for start, length in tensors(file, size, sha) if has_header else evenly(size):
        last = max(0, length - PIECE_BYTES)
        for offset in sorted({0, last // 2, last}):
            file.seek(start + offset)
            sha.update(file.read(min(PIECE_BYTES, length)))
    return sha.hexdigest()


def tensors(file: BinaryIO, size: int, sha: hashlib._Hash) -> Iterator[tuple[int, int]]:
    """Yield the offset and length of each tensor in bytes, and add the header to `sha`.

    For a file without a readable header, yield what `evenly` yields: loading the file will report what is wrong.
    """
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length) if length <= min(size, MAX_HEADER_BYTES) else b""
    sha.update(header)
    try:
        offsets = [entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"]
        places = sorted((8 + length + start, end - start) for start, end in offsets)
        is_within = all(start >= 0 <= length and start + length <= size for start, length in places)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_within = False
    yield from places if is_within else evenly(size)


def evenly(size: int, pieces: int = 256) -> Iterator[tuple[int, int]]:
    """Yield the offset and length, in bytes, of pieces that cover a file."""
    length = -(-size // pieces)
    yield from ((start, min(length, size - start)) for start in range(0, size, length))
