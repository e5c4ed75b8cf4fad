"""The side of a box that runs programs one after another in one namespace, like a notebook."""

from __future__ import annotations

import ast
import contextlib
import os
import random
import sys
import types

from rewards.sandbox import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILE = "program.py"
MAX_ERROR_CHARACTERS = 500


def run_session(job: dict[str, Any], lock: Callable[[], None]) -> None:
    """Run the programs of requests ``{"program": text}`` and keep their variables. Show the value of a last expression.

    The answers are ``{"ready": true}`` first, and then ``{"output": text, "error": text}``; the error is empty if there
    was none. The box's supervisor ends the process if a program takes longer than ``time_limit_s`` of processor time.
    """
    requests, replies = job["requests"], job["replies"]
    plain.write(replies, {"ready": True})
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    random.seed(job["seed"])  # so that random programs print the same if the completion is sampled again
    printed = os.memfd_create("output")
    os.dup2(printed, 1)
    lock()
    os.close(job["status"])
    os.close(job["calls"])  # the caller counts the calls
    while True:
        error = _run(plain.read(requests)["program"], vars(module))
        for stream in (sys.stdout, sys.__stdout__):  # programs put their own in its place
            with contextlib.suppress(BaseException):
                stream.flush()  # type: ignore[union-attr]
        output = os.pread(printed, job["output_bytes"], 0).decode(errors="replace")
        os.ftruncate(printed, 0)
        os.lseek(printed, 0, os.SEEK_SET)
        plain.write(replies, {"output": output, "error": error})


def _run(program: str, scope: dict[str, Any]) -> str:
    """Run a program; return its exception in one line."""
    try:
        tree = ast.parse(program, FILE)
        last = [tree.body.pop()] if tree.body and isinstance(tree.body[-1], ast.Expr) else []
        exec(compile(tree, FILE, "exec"), scope)  # noqa: S102  what the box is for
        exec(compile(ast.Interactive(last), FILE, "single"), scope)  # noqa: S102  which prints its value
    except SystemExit:
        return ""
    except BaseException as error:  # noqa: BLE001  the program is untrusted
        return _described(error)
    return ""


def _described(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        lines = [error.lineno] if isinstance(error, SyntaxError) else list(_lines(error))
        message = str(error.msg if isinstance(error, SyntaxError) else error)
        where = f"line {lines[-1]}: " if lines else ""
        return f"{where}{kind}: {message}"[:MAX_ERROR_CHARACTERS]
    except BaseException:  # noqa: BLE001  an exception of the program's own may have no words
        return kind


def _lines(error: BaseException) -> list[int]:
    """Return the lines of the program in an exception's traceback."""
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return lines
