"""A connection to an OpenAI-compatible endpoint that keeps a rate limit and does not trust the replies.

The library accepts bodies of any size, compressed bodies, and redirections to other hosts; this client refuses them.
The library's retries are off, because it gives up if an endpoint asks for a pause of more than two minutes. reply.py
has our own rules.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import httpx2
from aiolimiter import AsyncLimiter
from openai import AsyncOpenAI

from rewards.judge.config import JudgeConfig

MAX_BODY_BYTES = 2**20
"""Largest body of a reply."""
NO_KEY = "none"
"""The key that is sent to an endpoint that needs no key, because the library requires one."""

REQUESTS: ContextVar[list[int] | None] = ContextVar("requests", default=None)
"""Counter of this judgement's requests: a list with one number."""


class GuardedClient(httpx2.AsyncClient):
    """Keeps the rate limit, counts requests, and refuses bodies that are too large or compressed."""

    def __init__(self, limiter: AsyncLimiter | None, timeout_s: float) -> None:
        super().__init__(timeout=timeout_s, follow_redirects=False)
        self._limiter = limiter

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        if self._limiter is not None:
            await self._limiter.acquire()
        if (count := REQUESTS.get()) is not None:
            count[0] += 1
        response = await super().send(request, stream=True, **options)
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise httpx2.DecodingError("the reply is compressed, but the request did not allow it", request=request)
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, request)
            if not stream:
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        return response


class _Bounded(httpx2.AsyncByteStream):
    """A body that raises an error if it grows too large."""

    def __init__(self, stream: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._stream = stream
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        total = 0
        async for chunk in self._stream:
            total += len(chunk)
            if total > MAX_BODY_BYTES:
                raise httpx2.DecodingError(
                    f"the endpoint sent more than {MAX_BODY_BYTES:,} bytes", request=self._request
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def connect(config: JudgeConfig, key: str, requests_per_minute: float | None) -> AsyncOpenAI:
    """Return a client for the endpoint. ``requests_per_minute`` is this process's share of the limit, None for none."""
    limiter = None if requests_per_minute is None else AsyncLimiter(1, 60.0 / requests_per_minute)
    return AsyncOpenAI(
        api_key=key or NO_KEY,
        base_url=config.base_url,
        timeout=config.timeout_s,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
        http_client=GuardedClient(limiter, config.timeout_s),
    )
