r"""Remove units, currencies and percent signs from a rewritten answer, and find the words of an answer in words.

A unit consists of words after a number: ``3 people``, ``5\text{ cm}^2``, ``3 km/h``. Words of mathematics are not units
(``3 thirds``, ``5 or more``, ``2 squared``), and a letter that touches its number is not a unit either: ``3t``.
"""

from __future__ import annotations

import re

MAX_WORDS = 6

_WORDS_OF_MATHEMATICS = (
    "and or not nor no non if then else plus minus times over divided by mod modulo squared cubed root radical to "
    "through than less more most least greater fewer between about at up down half halves third thirds quarter "
    "quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths "
    "hundredth hundredths thousandth thousandths hundred hundreds thousand thousands million millions billion billions "
    "trillion trillions choose factorial sin cos tan cot sec csc log ln exp sqrt lim max min sum remainder negative "
    "positive approximately imaginary undefined for where when power base is are equals wrong false incorrect maybe ab "
    "bc cd xy yz xz abc bcd xyz pqr rst mn pq rs uv i e pi inf infinity cdot times frac because since but so "
    "only all any real integer integers each except unless without"
)
_NOT_UNITS = frozenset(_WORDS_OF_MATHEMATICS.split())
_SHORT_UNITS = (
    "cm mm km dm nm kg mg ml mL dL cl kL ft in lb lbs oz mi yd hr hrs min mins sec secs ms kmh kmph mph kph rpm Hz kHz "
    "MHz kW kWh kJ kN Pa kPa mol deg rad st nd rd th sq cu yr yrs USD usd EUR pts pcs cc gm gal pt qt inches feet foot "
    "meters metres grams degrees dollars cents hours minutes seconds days years units people"
)
_ABBREVIATIONS = frozenset(_SHORT_UNITS.split())
_LETTERS = frozenset("mgshlLNJWVKCFA")
_SMALL_GLUED = re.compile(r"[0-9](?:m|km|cm|mm|ft|in)[²³]\s*\.?\s*\Z")
_BLOCK = r"\\text\s*\{[^{}\\$^_]*\}"
_TAIL = re.compile(rf"(?:{_BLOCK}|[A-Za-z.]|(?<=[A-Za-z}}])\s?\^\s?(?:-?[1-9]|\{{-?[1-9]\}})|[\s/%]|\\cdot)++\Z")
_WORD = re.compile(r"[A-Za-z]+")
_ENDS_IN_NUMBER = re.compile(r"(?:[0-9)\]}]|\\pi)\s*\Z")
_CURRENCY = re.compile(r"\\\$|[$€£¥₹₽₩]|(?<![A-Za-z])(?:Rs\.?|USD)\s*(?=[0-9])")
_PERCENT = re.compile(
    r"(?:\s*\\?%|\s*(?:\\text\s*\{\s*)?(?:percent(?:age)?|pct)(?![A-Za-z])\s*\}?)\s*\Z", re.IGNORECASE
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z \n,.;:'’-]*")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


def without_currency(text: str) -> str:
    """Return an answer, before it is rewritten, without currency signs, and without the unit of ``5m²``."""
    text = _CURRENCY.sub("", text)
    return text.strip()[:-2] if _SMALL_GLUED.search(text) and text.strip()[-2] == "m" else text


def without_percent(latex: str) -> tuple[str, bool]:
    """Return a rewritten answer without a percent sign at its end, and whether it had a percent sign."""
    bare = _PERCENT.sub("", latex)
    return bare, bare != latex


def without_unit(latex: str) -> str:
    """Return a rewritten answer without the unit at its end, if it has a unit."""
    match = _TAIL.search(latex)
    if match is None or not match[0].strip():
        return latex
    body, tail = latex[: match.start()], match[0]
    if body.endswith("\\"):  # the tail began inside a command: \pi m
        command = _WORD.match(tail)
        assert command is not None
        body, tail = body + command[0], tail[command.end() :]
    words = _WORD.findall(tail.replace("\\text", " ").replace("\\cdot", " "))
    if not words or len(words) > MAX_WORDS or not _ENDS_IN_NUMBER.search(body):
        return latex
    is_apart = tail[0] in " \\"
    in_block = "\\text" in tail
    return body.strip() if all(_is_unit(word, is_apart, in_block) for word in words) else latex


def _is_unit(word: str, is_apart: bool, in_block: bool) -> bool:
    if word in _ABBREVIATIONS or (word in _LETTERS and is_apart):
        return True
    if len(word) < 2 or word.lower() in _NOT_UNITS or not is_apart:
        return False
    return in_block or len(word) > 2


def words(latex: str) -> str | None:
    """Return the words of an answer that consists only of words, in lower case; None for any other answer."""
    plain, blocks = _TEXT.subn(r" \1 ", latex)
    plain = plain.strip(" ().,;:'\"")
    if not _WORDS.fullmatch(plain):
        return None
    single = _WORD.findall(plain)
    if len("".join(single)) < 2 or not (blocks or any(len(word) > 2 for word in single)):
        return None
    return "".join(single).lower()
