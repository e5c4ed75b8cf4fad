"""A stand-in for the Hugging Face hub on this machine: what its HTTP API answers while a model is uploaded."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

TOKEN = "hf_planted0123456789"
REVISION = "0" * 40


@dataclass
class Hub:
    """What the hub knows, and what it was told."""

    cards: dict[str, str] = field(default_factory=dict)
    """README.md by path, such as `org/model` and `datasets/org/data`."""
    refuses: int = 0
    """Status of the answer to every call that writes; 0: none is refused."""
    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by hash."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Files of the commit."""
    commits: list[dict[str, Any]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def post(self, path: str, body: bytes) -> Mapping[str, Any]:
        """Answer a call that writes."""
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            name = f"{self.created[-1]['organization']}/{self.created[-1]['name']}"
            return {"url": f"{self.url}/{name}", "name": name}
        if "/preupload/" in path:
            return {"files": [self._mode(file) for file in json.loads(body)["files"]]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            action = {"upload": {"href": f"{self.url}/store/{{}}"}}
            return {
                "objects": [
                    each | {"actions": json.loads(json.dumps(action).replace("{}", each["oid"]))} for each in objects
                ]
            }
        if "/commit/" in path:
            self._commit([json.loads(line) for line in body.splitlines()])
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            return {"commitUrl": f"{self.url}/{name}/commit/{REVISION}", "commitOid": REVISION}
        return {}

    def _mode(self, file: Mapping[str, Any]) -> dict[str, Any]:
        is_large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.commits.append(value)
            elif line["key"] == "lfsFile":
                self.files[value["path"]] = self.stored[value["oid"]]
            elif line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])


class Handler(BaseHTTPRequestHandler):
    """Answers one call."""

    hub: Hub

    def do_HEAD(self) -> None:
        self._card(with_body=False)

    def do_GET(self) -> None:
        self._card(with_body=True)

    def do_POST(self) -> None:
        body = self._body()
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refuses:
            self._answer(self.hub.refuses, b"{}")
        else:
            self._answer(200, json.dumps(self.hub.post(self.path.partition("?")[0], body)).encode())

    def do_PUT(self) -> None:
        body = self._body()
        assert sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self.hub.stored[self.path.rpartition("/")[2]] = body
        self._answer(200, b"")

    def _card(self, *, with_body: bool) -> None:
        text = self.hub.cards.get(self.path.removeprefix("/").removesuffix("/resolve/main/README.md"))
        if text is None:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        found = {"ETag": f'"{sha256(text.encode()).hexdigest()}"', "X-Repo-Commit": REVISION}
        self._answer(200, text.encode(), found, with_body=with_body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def hub_stand_in(**known: Any) -> Iterator[Hub]:
    """Serve a hub on 127.0.0.1 for as long as the context lasts."""
    hub = Hub(**known)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HandlerOfHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def talk_to(hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let this process talk to the stand-in in place of the real hub, and keep what it loads in that folder."""
    told = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(cache),
    }
    for name, value in told.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
