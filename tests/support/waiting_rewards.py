"""Reward functions that wait. A completion's text says what they do meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from typing import Any


def _spin() -> None:
    while True:
        pass


async def waiting(text: str, answer: Mapping[str, Any]) -> float:
    """Do what ``text`` says, and return 1 if that ever ends."""
    match text.split():
        case ["sleep", seconds]:
            await asyncio.sleep(float(seconds))
        case ["together", seconds]:  # in tasks of its own
            await asyncio.gather(*(asyncio.sleep(float(seconds)) for _ in range(3)))
        case ["hang"]:
            await asyncio.get_running_loop().create_future()
        case ["stubborn"]:
            while True:
                try:
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    continue
        case ["spin"]:
            await asyncio.sleep(0)
            _spin()
        case ["busy", seconds]:  # it should not, but it ends
            await asyncio.sleep(0)
            time.sleep(float(seconds))
        case ["die"]:
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        case ["leave"]:
            raise SystemExit(3)
        case ["raise"]:
            raise ValueError("no such thing")
        case ["hog"]:
            bytearray(8 * 2**30)
    return 1.0


async def asked(text: str, answer: Mapping[str, Any], prompt: str, log_metric: Any) -> float:
    """Read the prompt, and log a figure."""
    log_metric("asked_characters", len(prompt))
    await asyncio.sleep(0)
    return float(text in prompt)


async def rank(texts: list[str], answer: Mapping[str, Any]) -> list[float]:
    """Rank a group by length: the longest text gets 1, the shortest 0."""
    await asyncio.sleep(0.01)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    return [order.index(index) / (len(texts) - 1) for index in range(len(texts))]


def unique(texts: list[str], answer: Mapping[str, Any], *, case: bool = True) -> list[float]:
    """Pay a text that no other of the group equals."""
    seen = texts if case else [text.lower() for text in texts]
    return [float(seen.count(text) == 1) for text in seen]


def hangs_at_stop(texts: list[str], answer: Mapping[str, Any]) -> list[float]:
    """Never return from a group in which somebody says stop."""
    if "stop" in texts:
        _spin()
    return [1.0] * len(texts)


def sometimes(text: str, answer: Mapping[str, Any]) -> float | None:
    """Apply to short texts only."""
    return 1.0 if len(text) < 5 else None
