"""Settings of a model that judges completions. Imports nothing but pydantic."""

from __future__ import annotations

import math
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

JUDGE_DEADLINE_S = 240.0
"""Deadline of a judgement in seconds, with its retries and pauses; below ``rollout.stall_timeout_s``'s default."""


class JudgeConfig(BaseModel, frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False):
    """A part of the reward that a language model scores, at an OpenAI-compatible endpoint."""

    model: str = Field(min_length=1)
    """Name of the model at the endpoint."""
    rubric: str = Field(min_length=1)
    """What makes a completion good, in words for the judge. It may contain entries of the prompt's answer by their
    names, such as `{answer}`. The judge always sees question and completion, as data and not as instructions."""
    base_url: str = "https://api.openai.com/v1"
    """Address of the endpoint, such as `http://127.0.0.1:8000/v1` of a vLLM server."""
    key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """Environment variable that holds the key, on each machine with reward workers. (A key in a recipe would be written
    into the run's directory.) Empty: the endpoint needs no key."""
    best: int = Field(default=10, ge=1, le=1_000)
    """Highest score that the judge may give. The part is the score divided by it: 7 of 10 is 0.7."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    """Temperature of the judge's sampling. 0 is the most reproducible; OpenAI's reasoning models accept only 1."""
    max_answer_tokens: int = Field(default=512, ge=16, le=1_000_000)
    """Longest reply of the judge, in tokens. A reasoning model needs thousands."""
    max_characters: int = Field(default=20_000, ge=1, le=10_000_000)
    """Largest number of characters of a completion that the judge reads; of a longer completion it reads the end."""
    answer_format: Literal["json_schema", "json_object", "text"] = "json_schema"
    """How the endpoint is asked for JSON: with a schema, which vLLM and OpenAI enforce; with OpenAI's older JSON mode;
    or only in words. The reply is always checked."""
    timeout_s: float = Field(default=60.0, gt=0, le=3_600)
    """Seconds that the endpoint may send nothing during one request. `rewards.deadlines_s.<judge>` limits the whole
    judgement, with its retries and pauses: 240 by default."""
    attempts: int = Field(default=4, ge=1, le=20)
    """Largest number of requests for one judgement. A request is repeated after a failed connection, the statuses 408,
    409, 429 and 5xx, and an invalid reply, after a pause that doubles or that the endpoint asks for."""
    requests_per_minute: float | None = Field(default=None, gt=0, le=1e6)
    """Rate limit of all workers together; each uses its share. Unset: only `rewards.max_in_flight` limits requests."""
    cache: str = "~/.cache/rayzero/judgements"
    """Folder that caches judgements by the content of their request: the same request is paid for once, and a resumed
    run gets the same rewards. Empty: no cache."""
    usd_per_million_tokens: tuple[float, float] = (0.0, 0.0)
    """Price in US dollars of a million tokens read, and of a million written, for `reward/logged/<judge>_usd`."""

    @field_validator("base_url")
    @classmethod
    def _is_an_address_without_a_secret(cls, base_url: str) -> str:
        try:
            parts = urlsplit(base_url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError(f"base_url = {base_url!r} is not an address: write one such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                f"base_url names a user, a password or a query for {parts.hostname}: keep secrets in key_variable"
            )
        return base_url

    @model_validator(mode="after")
    def _prices_are_not_negative(self) -> Self:
        if min(self.usd_per_million_tokens) < 0:
            raise ValueError(f"usd_per_million_tokens = {list(self.usd_per_million_tokens)}: must not be negative")
        return self

    def rate_conflict(self, name: str, num_workers: int, max_in_flight: int, deadline_s: float) -> str | None:
        """Return why calls would miss their deadline while they wait for the rate limit; None if they need not."""
        rate = self.requests_per_minute
        if rate is None or (wait_s := 60 * max_in_flight * num_workers / rate) < deadline_s:
            return None
        fits = math.ceil(deadline_s * rate / (60 * num_workers)) - 1
        lower = f"lower rewards.max_in_flight = {max_in_flight} to {fits} at most, or " if fits else ""
        return (
            f"rewards.judges.{name}.requests_per_minute = {rate:g}: {max_in_flight} calls in flight in each of "
            f"{num_workers} workers wait up to {wait_s:g} s for it, and rewards.deadlines_s.{name} is {deadline_s:g}: "
            f"{lower}raise the rate or the deadline"
        )

    def schema_of_answer(self) -> dict[str, object]:
        """Return the JSON schema of the judge's reply."""
        return {
            "type": "object",
            "properties": {
                "reason": {"type": "string"},
                "score": {"type": "integer", "minimum": 0, "maximum": self.best},
            },
            "required": ["reason", "score"],
            "additionalProperties": False,
        }
