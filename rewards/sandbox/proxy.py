"""Proxies of a candidate's functions, for the judge.

A proxy sends its arguments to the candidate's process and gives back what comes: plain data, or an exception of a
builtin type. No object of the candidate's, and so none of its methods, ever gets to the judge. Arguments are copies: a
test does not see what the candidate does to a list that it was given.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence

from rewards.sandbox import plain
from rewards.sandbox.processor import Calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# A StopIteration would end a test's own loop early, and a test that looks at fewer cases passes.
_NOT_RAISED = (StopIteration, StopAsyncIteration, UnicodeError, ExceptionGroup)
_EXCEPTIONS: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED)
}


class Unanswered(BaseException):
    """The candidate gave no answer. It is not an Exception, so that tests do not confuse it with the candidate's."""


class Candidate:
    """The candidate's process. After it has failed to answer once, it gets no more calls."""

    def __init__(self, requests: int, replies: int, calls: Calls) -> None:
        self._requests = requests
        self._replies = replies
        self._calls = calls
        self.failure: str | None = None
        """Why it does not answer any more."""
        self.was_asked = False
        """Whether the candidate may have influenced this process."""
        self.unaskable: str | None = None
        """The argument of a test that cannot be sent, if nothing had come from the program before."""

    def function(self, name: str) -> Callable[..., Any]:
        """Return the proxy of one function. It returns or raises what the function does, or raises Unanswered."""

        def proxy(*arguments: Any, **keywords: Any) -> Any:
            return self._call(name, arguments, keywords)

        proxy.__name__ = proxy.__qualname__ = name
        return proxy

    def wait(self) -> None:
        """Wait until it has started. Raises Unanswered if it does not start."""
        self._receive("ready")

    def load(self) -> None:
        """Wait until the program is loaded. Raises the error of loading it, or Unanswered."""
        self.was_asked = True
        self._receive("loaded")
        self.was_asked = False  # loading alone has not influenced this process

    def run(self, given: str) -> tuple[str, bool]:
        """Return the program's output for an input, and whether it ended well. Raises Unanswered, also if late."""
        self._send({"input": given})
        output, exit_code = self._receive("ran")
        return str(output), exit_code == 0

    def late(self, *_: object) -> NoReturn:
        """Stop waiting; the handler of the timer's signal."""
        raise self._give_up("took too long")

    def _call(self, name: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
        try:
            request = plain.encode([name, arguments, keywords])
        except plain.NotPlainError as error:
            if not self.was_asked:
                self.unaskable = f"{name}() gets an argument that is not plain data: {error}"
            raise
        self._send(request)
        returned = self._receive("returned")
        try:
            return plain.decode(returned)
        except plain.NotPlainError as error:
            raise self._give_up(str(error)) from None

    def _send(self, request: Any) -> None:
        if self.failure:
            raise Unanswered(self.failure)
        self.was_asked = True
        self._calls.begin_one()
        try:
            plain.write(self._requests, request)
        except OSError:
            raise self._give_up("its process ended") from None
        except plain.NotPlainError as error:
            raise self._give_up(str(error)) from None

    def _receive(self, what: str) -> Any:
        try:
            reply = plain.read(self._replies)
        except EOFError:
            if self._calls.is_late:
                self.late()
            raise self._give_up("its process ended") from None
        except plain.NotPlainError as error:
            raise self._give_up(str(error)) from None
        if isinstance(reply, dict) and what in reply:
            return reply[what]
        match reply:
            case {"raised": [[*names], str(message)]}:
                raise _exception(names, message)
            case {"late": _}:
                self.late()
        raise self._give_up("it answered something else")

    def _give_up(self, reason: str) -> Unanswered:
        self.failure = self.failure or reason
        return Unanswered(self.failure)


def _exception(names: Sequence[object], message: str) -> Exception:
    """Return an exception of the first of these types that is a builtin one."""
    known = [_EXCEPTIONS[name] for name in names if isinstance(name, str) and name in _EXCEPTIONS]
    return (known or [RuntimeError])[0](message)
