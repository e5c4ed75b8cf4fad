"""CUDA streams without CUDA: each thread has a current one, as PyTorch keeps them, for vLLM's own functions to use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest


class Stream:
    """Nothing but itself."""

    def wait_stream(self, other: Stream) -> None:
        """Order nothing: there is nothing to run."""

    def synchronize(self) -> None:
        """Wait for nothing."""


class Streams:
    """The current stream of each thread; the default stream where none was set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch
        from vllm.utils import torch_utils

        self._default, self._threads = Stream(), threading.local()
        monkeypatch.setattr(torch_utils, "prev_set_stream", self._set)
        monkeypatch.setattr(torch_utils, "_current_stream_tls", threading.local())
        platform = SimpleNamespace(is_cuda=lambda: True, is_rocm=lambda: False, is_cpu=lambda: False)
        monkeypatch.setattr("vllm.platforms.current_platform", platform)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "set_stream", torch_utils._patched_set_stream)
        monkeypatch.setattr(torch.cuda, "current_stream", self.current)
        monkeypatch.setattr(torch.cuda, "stream", self._context)

    def current(self, device: object = None) -> Stream:
        return getattr(self._threads, "stream", self._default)

    def _set(self, stream: Stream) -> None:
        self._threads.stream = stream

    @contextmanager
    def _context(self, stream: Stream) -> Iterator[None]:
        import torch

        before = self.current()
        torch.cuda.set_stream(stream)
        try:
            yield
        finally:
            torch.cuda.set_stream(before)
