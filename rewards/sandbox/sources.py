"""Read a program as its writer meant it: as a complete module, or as the rest of the function that the prompt began.

The indent of a first line is easily lost or changed: behind an opening tag, in a fence, where the prompt ended in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

# Code compiled here inherits the import of annotations above, so a type that was not imported is not an error.
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def compiled(context: str, program: str, functions: Sequence[str] = ()) -> list[CodeType]:
    """Return the code to run, in this order and in one namespace. Raises any error of compiling the unchanged program.

    Args:
        context: source that stands before the program; it may end in a function without a body of its own.
        functions: what the program is to define, so that one that names none of them is no whole module.
    """
    for sources in _readings(context, program, functions):
        with suppress(*_UNREADABLE):
            codes = [_compile(source) for source in sources]
            if len(codes) == 1 or not functions or any(name in codes[-1].co_names for name in functions):
                return codes
    return [_compile(context), _compile(program)]


def _readings(context: str, program: str, functions: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the possible sources of a program, the likeliest first."""
    text = program[len(program) - len(program.lstrip()) :]
    indent = program[: len(program) - len(text)].rpartition("\n")[2]
    wholes = [(context, text), (context, _shifted(indent + text, indent, ""))]
    if not indent or any(f"def {name}" in text for name in functions):
        yield from wholes
        yield from _continuations(context, indent, text)
    else:
        yield from _continuations(context, indent, text)
        yield from wholes


def _continuations(context: str, indent: str, text: str) -> Iterator[tuple[str]]:
    """Yield the sources in which a program is the rest of the context's last function."""
    if indent:
        yield (f"{context}\n{indent}{text}",)
    inside = _inner_indent(context)
    if inside:
        yield (f"{context}\n{_shifted(indent + text, indent, inside)}",)
        first, line_end, rest = text.partition("\n")
        outer = min((line[: -len(line.lstrip())] for line in rest.split("\n") if line.strip()), key=len, default="")
        yield (f"{context}\n{inside}{first}{line_end}{_shifted(rest, outer, inside)}",)


def _shifted(text: str, old: str, new: str) -> str:
    """Return the text with another indent in the lines that have the old one."""
    lines = text.split("\n")
    return "\n".join(new + line.removeprefix(old) if line.strip() and line.startswith(old) else line for line in lines)


def _inner_indent(context: str) -> str | None:
    """Return the indent of the last function's body; None if the context does not end in a function."""
    import ast  # most programs do not need it, and its import takes as long as that of all modules of a box

    with suppress(*_UNREADABLE):
        node: ast.AST = ast.parse(context)
        while isinstance(node, ast.Module | ast.ClassDef) and node.body:
            node = node.body[-1]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            before = context.split("\n")[first.lineno - 1].encode()[: first.col_offset].decode()
            return before if before.strip() == "" else None
    return None


def _compile(source: str) -> CodeType:
    return compile(source, "solution.py", "exec")
