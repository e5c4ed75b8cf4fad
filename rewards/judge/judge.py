"""A reward function that asks a language model to judge; ``rewards.judges`` describes the judges."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from rewards.judge.cache import JudgementCache
from rewards.judge.config import JudgeConfig
from rewards.judge.question import Messages, WrongAnswerError, messages, score_of
from rewards.judge.reply import parsed, pause_s, said_in, tokens_of, wants_other_name, was_cut
from rollout.types.paths import from_home

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LogMetric = Callable[[str, float], None]


class JudgementError(RuntimeError):
    """A judgement failed."""


def prepare(*, name: str, **settings: Any) -> None:
    """Check that the judge has a usable key; called when the function is loaded, before the run starts.

    Raises RewardConfigError if the key is missing, or has characters that are not allowed in an HTTP header.
    """
    from rewards.config import RewardConfigError

    config = _config(settings)
    key, where = key_of(config), f"rewards.judges.{name}.key_variable: the variable {config.key_variable}"
    if config.key_variable and not key:
        raise RewardConfigError(
            f"{where} is not set where reward workers run, or is empty. Set it on each machine before Ray starts "
            "there, or set key_variable to an empty text if the endpoint needs no key"
        )
    if not (key.isascii() and key.isprintable()):  # the key itself is not shown
        raise RewardConfigError(
            f"{where} does not contain a valid key: it has control characters or characters beyond ASCII. Set it to "
            "the key alone, in one line"
        )
    from rewards.judge import client  # noqa: F401  the import takes a second, which must not count against a deadline


async def judge(
    text: str,
    answer: Mapping[str, Any],
    *,
    prompt: str,
    log_metric: LogMetric,
    name: str,
    num_workers: int,
    deadline_s: float,
    **settings: Any,
) -> float:
    """Return the judge's score for the text, divided by the best score: from 0 to 1.

    Raises JudgementError if the endpoint keeps failing or its replies stay invalid, ValueError if the rubric names an
    entry that the answer does not have.
    """
    here = _Judge.here(_config(settings), name, num_workers, deadline_s)
    return await here.score(messages(here.config, text, prompt, answer), log_metric)


@dataclass
class _Usage:
    """The requests and tokens of a judgement so far."""

    requests: list[int] = field(default_factory=lambda: [0])
    read: float = 0
    written: float = 0


class _Judge:
    """A judge in this process, with its connections."""

    _known: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, JudgeConfig], _Judge]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, config: JudgeConfig, name: str, num_workers: int, deadline_s: float) -> None:
        from rewards.judge.client import connect

        self.config = config
        self._name = name
        self._deadline_s = deadline_s
        self._takes_max_tokens = True
        self._key = key_of(config)
        rate = config.requests_per_minute
        self._client: AsyncOpenAI = connect(config, self._key, None if rate is None else rate / num_workers)
        self._cache = JudgementCache(Path(from_home(config.cache))) if config.cache else None

    @classmethod
    def here(cls, config: JudgeConfig, name: str, num_workers: int, deadline_s: float) -> _Judge:
        """Return the judge for this event loop, because its connections belong to the loop."""
        known = cls._known.setdefault(asyncio.get_running_loop(), {})
        if (name, config) not in known:
            known[name, config] = cls(config, name, num_workers, deadline_s)
        return known[name, config]

    async def score(self, question: Messages, log_metric: LogMetric) -> float:
        request = self._request(question)
        content = {"url": self.config.base_url, "best": self.config.best, **request}
        if self._cache is not None and (said := self._cache.get(content)) is not None:
            try:
                score = score_of(self.config, said)
            except WrongAnswerError:  # somebody changed the file: ask again
                pass
            else:
                log_metric(f"{self._name}_cached", 1)
                return score
        log_metric(f"{self._name}_cached", 0)
        said, score = await self._ask(request, log_metric)
        if self._cache is not None:
            try:
                self._cache.put(content, said)
            except OSError:  # the judgement is valid even if it cannot be stored
                log_metric(f"{self._name}_not_kept", 1)
        return score

    async def _ask(self, request: dict[str, Any], log_metric: LogMetric) -> tuple[str, float]:
        """Return the judge's reply and score. Repeat the request after a temporary failure, within the limits."""
        from rewards.judge.client import REQUESTS

        usage = _Usage()
        token = REQUESTS.set(usage.requests)
        end, attempt = time.monotonic() + self._deadline_s, 0
        try:
            while True:
                attempt += 1
                try:
                    return await self._try(request, usage)
                except Exception as error:
                    pause = pause_s(error, attempt) if attempt < self.config.attempts else None
                    if pause is None:
                        raise
                    if time.monotonic() + pause >= end:
                        raise JudgementError(
                            f"a pause of {pause:g} s before the next attempt goes beyond the deadline: raise "
                            f"rewards.deadlines_s.{self._name} = {self._deadline_s:g}; before, {error}"
                        ) from None
                    await asyncio.sleep(pause)
        except Exception as error:  # noqa: BLE001  an endpoint may send anything
            raise self._failure(error, usage.requests[0]) from None
        finally:
            REQUESTS.reset(token)
            prices = self.config.usd_per_million_tokens
            log_metric(f"{self._name}_requests", usage.requests[0])
            log_metric(f"{self._name}_tokens", usage.read + usage.written)
            log_metric(f"{self._name}_usd", (usage.read * prices[0] + usage.written * prices[1]) / 1e6)

    async def _try(self, request: dict[str, Any], usage: _Usage) -> tuple[str, float]:
        completion = parsed(await self._send(request))
        read, written = tokens_of(completion)
        usage.read += read
        usage.written += written
        try:
            said = said_in(completion)
            return said, score_of(self.config, said)
        except WrongAnswerError as error:
            if not was_cut(completion):
                raise
            limit = self.config.max_answer_tokens
            raise WrongAnswerError(f"the judge was cut off at max_answer_tokens = {limit}: raise it; {error}") from None

    async def _send(self, request: dict[str, Any]) -> bytes:
        """Return the body of the reply. If the endpoint refuses ``max_tokens``, use the newer name from then on."""
        create = self._client.chat.completions.with_raw_response.create
        if not self._takes_max_tokens:
            request = dict(request)
            request["max_completion_tokens"] = request.pop("max_tokens")
        try:
            return (await create(**request)).http_response.content
        except Exception as error:
            if "max_tokens" not in request or not wants_other_name(error):
                raise
            self._takes_max_tokens = False
        return await self._send(request)

    def _failure(self, error: Exception, num_requests: int) -> JudgementError:
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        is_ours = isinstance(error, WrongAnswerError | JudgementError)
        message = f"{error}{cause}" if is_ours else f"{type(error).__name__}: {error}{cause}"
        for shown in {self._key, repr(self._key)[1:-1]} - {""}:  # an endpoint may repeat the key in its error
            message = message.replace(shown, "***")
        return JudgementError(f"{self._name} at {self.config.base_url}, after {num_requests} requests: {message}")

    def _request(self, question: Messages) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.config.model,
            "messages": question,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_answer_tokens,
        }
        if self.config.answer_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        elif self.config.answer_format == "json_schema":
            schema = {"name": "verdict", "strict": True, "schema": self.config.schema_of_answer()}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request


def key_of(config: JudgeConfig) -> str:
    """Return the endpoint's key, without the final line break of a mounted secret; empty if there is no key."""
    return os.environ.get(config.key_variable, "").strip() if config.key_variable else ""


def _config(settings: Mapping[str, Any]) -> JudgeConfig:
    return JudgeConfig(**{key: value for key, value in settings.items() if key not in ("num_workers", "deadline_s")})
