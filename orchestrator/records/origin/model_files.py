"""Fingerprint of a model folder: small files whole, of weights the header and a part of every tensor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from learner.backend.file_digests import file_digest

SUFFIXES = {".json", ".jinja", ".model", ".txt", ".tiktoken", ".py", ".safetensors", ".bin"}
"""Files that decide what a model computes or reads. Others, such as a README, may change."""
WHOLE_BYTES = 64 * 2**20
"""Files up to this size are read whole. Larger ones hold gigabytes, which would take a minute at every start."""
PIECE_BYTES = 4096
"""Of each tensor of a larger file three such pieces are read: its beginning, its middle and its end."""
MAX_HEADER_BYTES = 100 * 2**20
"""Longest header of safetensors, as its reference implementation limits it."""


def model_files(model: str) -> dict[str, str]:
    """Return a hash for each file of a model folder, by its name; of a hub's model the commit, under `revision`.

    Empty when nothing is known of it. What is hashed of weights above WHOLE_BYTES is in `sampled_digest`: training
    changes a part of every tensor, so that it is noticed; a change of a few numbers within one may not be.
    """
    folder = Path(model)
    if not folder.is_dir():
        revision = hub_revision(model)
        return {"revision": revision} if revision else {}
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    return {file.name: digest_of(file) for file in files}


def hub_revision(model: str) -> str | None:
    """Return the commit of a hub's model that is in the cache, from where it is loaded; None when it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json")
    return Path(found).parent.name if isinstance(found, str) else None


def digest_of(file: Path) -> str:
    """Return a hash of a file's content in hexadecimal, with its size."""
    size = file.stat().st_size
    if size <= WHOLE_BYTES:
        return file_digest(file)
    with file.open("rb") as opened:
        return f"{size}:{sampled_digest(opened, size, file.suffix == '.safetensors')}"


def sampled_digest(file: BinaryIO, size: int, has_header: bool) -> str:
    """Return a hash of the file's header, and of pieces of each tensor; of other files of pieces all over."""
    sha = hashlib.sha256()
    for start, length in tensors(file, size, sha) if has_header else evenly(size):
        last = max(0, length - PIECE_BYTES)
        for offset in sorted({0, last // 2, last}):
            file.seek(start + offset)
            sha.update(file.read(min(PIECE_BYTES, length)))
    return sha.hexdigest()


def tensors(file: BinaryIO, size: int, sha: hashlib._Hash) -> Iterator[tuple[int, int]]:
    """Yield the place and the length of each tensor, in bytes. The header is hashed.

    A file without a readable header is taken as one tensor: loading it will say what is wrong.
    """
    length = int.from_bytes(file.read(8), "little")
    header = file.read(length) if length <= min(size, MAX_HEADER_BYTES) else b""
    sha.update(header)
    try:
        found = [entry["data_offsets"] for name, entry in json.loads(header).items() if name != "__metadata__"]
        places = sorted((8 + length + start, end - start) for start, end in found)
        is_within = all(start >= 0 <= length and start + length <= size for start, length in places)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_within = False
    yield from places if is_within else evenly(size)


def evenly(size: int, pieces: int = 256) -> Iterator[tuple[int, int]]:
    """Yield the place and the length of pieces that cover a file, in bytes."""
    length = -(-size // pieces)
    yield from ((start, min(length, size - start)) for start in range(0, size, length))
