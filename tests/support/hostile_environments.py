"""Environments that hang, die, lie and talk too much."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from rollout.types.environments import Observation
from rollout.types.prompts import Prompt


class Hostile:
    """Does what the prompt's answer says at a call: `{"step": "hang"}`. Otherwise it says what it was told."""

    stop = ("</do>",)
    parts = ("told",)

    def __init__(self, hint: str = "", flag: str = "") -> None:
        self.hint, self.flag = hint, flag
        self.told: list[str] = []
        self.acts: dict[str, Any] = {}

    def start(self, prompt: Prompt, seed: int) -> Observation:
        self.acts = dict(prompt.answer)
        if "init" in self.acts:
            return self._act("init", "")
        return self._act("start", f"{self.hint}{seed}")

    def step(self, text: str) -> Observation:
        self.told.append(text)
        return self._act("step", text)

    def close(self) -> None:
        if self.flag:
            Path(self.flag).write_text(" ".join(self.told))
        self._act("close", "")

    def _act(self, when: str, text: str) -> Any:
        act = self.acts.get(when, "")
        if act:
            return ACTS[act](self)
        return Observation(text, parts={"told": float(len(self.told))})


class Picky(Hostile):
    """Is made with good taste alone."""

    def __init__(self, taste: str) -> None:
        super().__init__()
        if taste == "none":
            raise ValueError("no taste at all")


def _hang(_: Hostile) -> Any:
    time.sleep(3600)


def _spin(_: Hostile) -> Any:
    while True:
        pass


def _raise(_: Hostile) -> Any:
    raise ValueError("no " + "\ud800" * 3)


def _hog(_: Hostile) -> Any:
    return Observation(str(len(bytearray(3 * 2**30))))


def _channel() -> int:
    """Return the descriptor of the socket to the worker."""
    for number in range(3, 64):
        try:
            with socket.socket(fileno=os.dup(number)) as found:
                if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
                    return number
        except OSError:
            pass
    raise AssertionError("no socket")


def _write(content: bytes) -> Any:
    number = _channel()
    sent = memoryview(content)
    while sent:
        sent = sent[os.write(number, sent) :]


def _forge(_: Hostile) -> Any:
    """Answer twice: what was asked, and what was not."""
    line = json.dumps(["ok", "forged", False, {}, "", 0.0]).encode() + b"\n"
    _write(line + line)
    time.sleep(3600)


def _differ(_: Hostile) -> Any:
    return Observation(f"process {os.getpid()}")


def _nest(_: Hostile) -> Any:
    _write(b"[" * 100_000 + b"\n")


ACTS: dict[str, Any] = {
    "hang": _hang,
    "spin": _spin,
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "leave": lambda _: os._exit(3),
    "exit": lambda _: sys.exit(4),
    "raise": _raise,
    "hog": _hog,
    "forge": _forge,
    "garbage": lambda _: _write(b"\xff\x00 nonsense\n"),
    "nest": _nest,
    "flood": lambda _: _write(b"x" * 10_000_000),
    "differ": _differ,
    "large": lambda _: Observation("é" * 10_000_000),
    "nul": lambda _: Observation("a\0b\udc80c<|im_end|>"),
    "text": lambda _: "only a text",
    "none": lambda _: None,
    "bytes": lambda _: Observation(b"bytes"),  # type: ignore[arg-type]
    "maybe": lambda _: Observation("", is_over="maybe"),  # type: ignore[arg-type]
    "nan": lambda _: Observation("", parts={"told": float("nan")}),
    "infinite": lambda _: Observation("", parts={"told": float("inf")}),
    "huge": lambda _: Observation("", parts={"told": 10**400}),
    "no number": lambda _: Observation("", parts={"told": "much"}),  # type: ignore[dict-item]
    "no name": lambda _: Observation("", parts={1: 1.0}),  # type: ignore[dict-item]
    "many": lambda _: Observation("", parts={f"part{number}": 1.0 for number in range(1000)}),
    "mistype": lambda _: Observation("", is_over=True, parts={"tolled": 7.0}),
    "over": lambda _: Observation("that is all", is_over=True, parts={"told": 7.0}),
}


class NoStep:
    """Lacks a method."""

    def start(self, prompt: Prompt, seed: int) -> Observation:
        return Observation("")

    def close(self) -> None: ...


class OddStop(NoStep):
    """Has a text where a tuple belongs."""

    stop: Any = "</do>"

    def step(self, text: str) -> Observation:
        return Observation("")


class StopMethod(OddStop):
    """Has a method where a tuple belongs."""

    def stop(self) -> None: ...


class PartsProperty(OddStop):
    """Has a property where a tuple belongs."""

    stop = ()

    @property
    def parts(self) -> tuple[str, ...]:
        return ("won",)


class NoParts(OddStop):
    """Has nothing where a tuple belongs."""

    stop, parts = (), None


class Needy(Hostile):
    """Needs a parameter."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
