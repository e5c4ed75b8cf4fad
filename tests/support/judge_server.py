"""An OpenAI-compatible endpoint on 127.0.0.1 that behaves as a test says: right, slow, wrong, limited or hostile."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[BaseHTTPRequestHandler, str], None]


@dataclass
class JudgeServer:
    """Answers each request by the next reply; the last one serves all further requests."""

    replies: list[Reply]
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The bodies that it was sent, oldest first."""
    times: list[float] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextmanager
def serving(*replies: Reply) -> Iterator[JudgeServer]:
    state = JudgeServer(list(replies))
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                state.requests.append(body)
                state.times.append(time.monotonic())
                state.keys.add(self.headers.get("Authorization", ""))
                reply = state.next_reply()
            self.body = body
            reply(self, body["messages"][-1]["content"])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def says(content: str) -> Reply:
    """Answer as a model that says ``content``."""
    return lambda handler, _: send(handler, 200, completion(content))


def sends(**fields: Any) -> Reply:
    """Answer with a completion, some of whose fields are others."""
    return lambda handler, _: send(handler, 200, json.dumps(json.loads(completion("")) | fields).encode())


def scores(score: object) -> Reply:
    return says(json.dumps({"reason": "as the rubric says", "score": score}))


def fails(status: int, body: str = '{"error": {"message": "no"}}', **headers: str) -> Reply:
    return lambda handler, _: send(handler, status, body.encode(), **headers)


def late(seconds: float, reply: Reply) -> Reply:
    def answer(handler: BaseHTTPRequestHandler, asked: str) -> None:
        time.sleep(seconds)
        reply(handler, asked)

    return answer


def says_the_key_back(handler: BaseHTTPRequestHandler, _: str) -> None:
    send(handler, 401, json.dumps({"error": {"message": f"bad key: {handler.headers['Authorization']}"}}).encode())


def knows_only(name: str, reply: Reply) -> Reply:
    """Answer as OpenAI's models that reason do: ``max_tokens``, or whatever else is not ``name``, is refused."""

    def answer(handler: BaseHTTPRequestHandler, asked: str) -> None:
        limits = {"max_tokens", "max_completion_tokens"} & handler.body.keys()  # type: ignore[attr-defined]
        if limits == {name}:
            reply(handler, asked)
        else:
            message = f"Unsupported parameter: {min(limits)!r} is not supported with this model. Use {name!r} instead."
            send(handler, 400, json.dumps({"error": {"message": message, "code": "unsupported_parameter"}}).encode())

    return answer


def floods(handler: BaseHTTPRequestHandler, _: str) -> None:
    send(handler, 200, completion("a" * 3_000_000))


def sends_a_bomb(handler: BaseHTTPRequestHandler, _: str) -> None:
    send(handler, 200, gzip.compress(completion("a" * 50_000_000), 1), **{"Content-Encoding": "gzip"})


def completion(content: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps(
        {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    try:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
    except OSError:  # the client has gone
        pass
