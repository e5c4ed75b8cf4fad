"""A reward function that asks a model: ``rewards.judges`` names and describes such judges."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from rewards.judge.cache import JudgementCache
from rewards.judge.config import JudgeConfig
from rewards.judge.question import Messages, WrongAnswerError, messages, score_of
from rollout.types.paths import from_home

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LogMetric = Callable[[str, float], None]


class JudgementError(RuntimeError):
    """A judgement failed."""


def prepare(*, name: str, **settings: Any) -> None:
    """Check before anything starts that the judge can be asked: called as the function is loaded.

    Raises RewardConfigError where the key is missing.
    """
    from rewards.config import RewardConfigError

    config = _config(settings)
    if config.key_variable and not os.environ.get(config.key_variable):
        raise RewardConfigError(
            f"rewards.judges.{name}.key_variable: the variable {config.key_variable} is not set where reward workers "
            "run. Set it on each machine before Ray starts there, or set key_variable to an empty text if the endpoint "
            "wants no key"
        )
    from rewards.judge import client  # noqa: F401  it takes a second, for which no deadline should run


async def judge(
    text: str,
    answer: Mapping[str, Any],
    *,
    prompt: str,
    log_metric: LogMetric,
    name: str,
    num_workers: int,
    **settings: Any,
) -> float:
    """Return the share of the best score that the judge gives the text.

    Raises JudgementError when the endpoint or its answers stay wrong, ValueError for a rubric that does not fit.
    """
    asked = _Judge.here(_config(settings), name, num_workers)
    return await asked.score(messages(asked.config, text, prompt, answer), log_metric)


class _Judge:
    """A judge in this process, with its connections."""

    _known: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, JudgeConfig], _Judge]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, config: JudgeConfig, name: str, num_workers: int) -> None:
        from rewards.judge.client import connect

        self.config = config
        self._name = name
        self._key = os.environ.get(config.key_variable, "") if config.key_variable else ""
        rate = config.requests_per_minute
        self._client: AsyncOpenAI = connect(config, self._key, None if rate is None else rate / num_workers)
        self._cache = JudgementCache(Path(from_home(config.cache))) if config.cache else None

    @classmethod
    def here(cls, config: JudgeConfig, name: str, num_workers: int) -> _Judge:
        """Return the judge of this event loop, whose connections belong to it."""
        known = cls._known.setdefault(asyncio.get_running_loop(), {})
        if (name, config) not in known:
            known[name, config] = cls(config, name, num_workers)
        return known[name, config]

    async def score(self, asked: Messages, log_metric: LogMetric) -> float:
        request = self._request(asked)
        content = {"url": self.config.base_url, "best": self.config.best, **request}
        if self._cache is not None and (said := self._cache.get(content)) is not None:
            try:
                score = score_of(self.config, said)
            except WrongAnswerError:  # somebody wrote into the file: ask again
                pass
            else:
                log_metric(f"{self._name}_cached", 1)
                return score
        log_metric(f"{self._name}_cached", 0)
        said, score = await self._ask(request, log_metric)
        if self._cache is not None:
            try:
                self._cache.put(content, said)
            except OSError:  # the judgement is good all the same
                log_metric(f"{self._name}_not_kept", 1)
        return score

    async def _ask(self, request: dict[str, Any], log_metric: LogMetric) -> tuple[str, float]:
        """Return what the judge said, and its score; ask again where it answered wrongly."""
        from rewards.judge.client import REQUESTS

        count = [0]
        token = REQUESTS.set(count)
        read = written = 0
        try:
            while True:
                client = self._client.with_options(max_retries=self.config.attempts - count[0] - 1)
                completion = await client.chat.completions.create(**request)
                if completion.usage is not None:
                    read += completion.usage.prompt_tokens or 0
                    written += completion.usage.completion_tokens or 0
                said = str(completion.choices[0].message.content) if completion.choices else ""
                try:
                    return said, score_of(self.config, said)
                except WrongAnswerError:
                    if count[0] >= self.config.attempts:
                        raise
        except Exception as error:  # noqa: BLE001  an endpoint may send anything
            raise self._failure(error, count[0]) from None
        finally:
            REQUESTS.reset(token)
            prices = self.config.usd_per_million_tokens
            log_metric(f"{self._name}_requests", count[0])
            log_metric(f"{self._name}_tokens", read + written)
            log_metric(f"{self._name}_usd", (read * prices[0] + written * prices[1]) / 1e6)

    def _failure(self, error: Exception, num_requests: int) -> JudgementError:
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        message = f"{type(error).__name__}: {error}{cause}"
        if self._key:
            message = message.replace(self._key, "***")  # an endpoint may say it back
        return JudgementError(f"{self._name} at {self.config.base_url}, after {num_requests} requests: {message}")

    def _request(self, asked: Messages) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.config.model,
            "messages": asked,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_answer_tokens,
        }
        if self.config.answer_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        elif self.config.answer_format == "json_schema":
            schema = {"name": "verdict", "strict": True, "schema": self.config.schema_of_answer()}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request


def _config(settings: Mapping[str, Any]) -> JudgeConfig:
    return JudgeConfig(**{key: value for key, value in settings.items() if key != "num_workers"})
