r"""Read numbers exactly, in the spellings of people and models.

Examples are ``$1,234.50``, ``7.0``, ``-3``, ``1/2``, ``2 1/2``, ``\frac{1}{2}``, ``12{,}000``, ``1.5 million`` and
``50\%``. Nothing is computed: ``48 + 24`` is two numbers, and ``10^2`` cannot be read. Text that looks like a number
but cannot be read (``1,2,3``, ``1.2.3``, ``5/0``, more than MAX_DIGITS digits) is returned as None and not skipped, so
that the number before it does not become the answer. Units, currencies and percent signs are dropped.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 40
"""Longest numeral, in characters. A float printed with all its digits has up to 25."""

_LATEX = [
    (re.compile(r"(?<=[A-Za-z])\}\s{0,3}\^\s{0,3}(?:\{[0-9]\}|[0-9])"), "} "),  # \text{cm}^2, as cm^2 is a unit
    (re.compile(r"\^\s{0,3}(?:\{\s{0,3}\\circ\s{0,3}\}|\\circ(?![A-Za-z]))"), "° "),
    (re.compile(r"(?<=[0-9])(?=\\[dt]?frac)"), " "),  # 2\frac{1}{2} is 2 1/2
    (re.compile(r"\\[dt]?frac[ ]?(?:\{([0-9.,]{1,40})\}|([0-9]))[ ]?(?:\{([0-9.,]{1,40})\}|([0-9]))"), r"\1\2/\3\4"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[,!;: ()\[\]]"), ""),
    (re.compile(r"\\(?:times|cdot|div|approx)(?![A-Za-z])"), " × "),
    (re.compile(r"\\([$%{}&#])"), r"\1"),
    (re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|boxed|left|right|displaystyle)(?![A-Za-z])"), " "),
    (re.compile(r"\\(?=[A-Za-z])"), " "),  # any other command is a word
    (re.compile(r"(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))"), ""),
]

_NUMERAL = re.compile(
    r"""
    [A-Za-z_] (?:\^\{?-?)? [0-9] [0-9A-Za-z_.]*                      # a name or a unit: x2, H2O, v1.2, m^2
    | (?P<number>
        (?:(?P<whole>[0-9]{1,15})[ ](?=[0-9]{1,9}/[0-9]))?           # 2 1/2
        (?P<digits>(?:(?<![A-Za-z0-9_])\.)?[0-9](?:[0-9.,]|[_'’](?=[0-9]))*)
        (?P<exponent>[eE][-+]?[0-9]{1,2}(?![0-9A-Za-z.]))?
        (?:[ ]?/[ ]?(?P<divisor>[0-9][0-9.,]*))?
      )
      (?P<scale>[ ]?(?:hundred|thousand|million|billion|trillion)\b)?
      (?P<power>[ ]?(?:\^|\*\*[ ]?(?=[0-9({])|/(?=[0-9]))[({-]?[0-9.,]*)?   # 10^2, and a date's second slash
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FUNCTION = re.compile(r"(?:√|(?<![A-Za-z])(?:sqrt|(?:log|ln|sin|cos|tan)(?=[({])))[ {(\[]{0,4}\Z")
_TIMES_PI = re.compile(r"[ ]?(?:π|pi\b)")
_DECIMAL = re.compile(r"(?:[0-9]{1,3}(?:[,_'’][0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?")
_SEPARATORS = re.compile(r"[,_'’]")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MINUS = "-−–"
_CURRENCY = "$€£¥₹"


def numbers(text: str) -> list[Fraction | None]:
    """Return every number of the text, in order; None for a number that cannot be read."""
    plain = _plain(text)
    return [_value(match, plain) for match in _NUMERAL.finditer(plain) if match["number"]]


def last_number(text: str) -> Fraction | None:
    """Return the last number of the text; None if there is none, or it cannot be read. Takes linear time."""
    plain = _plain(text)
    last = None
    for match in _NUMERAL.finditer(plain):
        last = match if match["number"] else last
    return None if last is None else _value(last, plain)


def begins_with_number(text: str) -> bool:
    """Return whether only signs, currencies and markup come before the first number."""
    plain = _plain(text).lstrip(f" \t*_([{{~≈{_MINUS}{_CURRENCY}")
    match = _NUMERAL.match(plain)
    return match is not None and bool(match["number"])


def _plain(text: str) -> str:
    if "\\" in text or "{,}" in text or not text.isascii():
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    return text


def _value(match: re.Match[str], text: str) -> Fraction | None:
    end = match.end()
    # A digit of another script, or a superscript, right after it makes it a different number.
    if match["power"] or (text[end : end + 1].isnumeric() and not text[end].isascii()):
        return None
    # The square root of 72, and 72π, are not the number 72.
    if _TIMES_PI.match(text, end) or _FUNCTION.search(text, max(0, match.start() - 12), match.start()):
        return None
    value = _decimal(match["digits"] + (match["exponent"] or ""))
    if value is not None and match["divisor"]:
        divisor = _decimal(match["divisor"])
        value = value / divisor if divisor else None
    if value is None:
        return None
    if match["whole"]:
        value += int(match["whole"])
    if match["scale"]:
        value *= _SCALES[match["scale"].strip().lower()]
    return -value if _is_negative(text, match.start()) else value


def _decimal(numeral: str) -> Fraction | None:
    mantissa, _, exponent = numeral.lower().partition("e")
    mantissa = mantissa.rstrip(".,")
    if len(mantissa) > MAX_DIGITS or not _DECIMAL.fullmatch(mantissa):
        return None
    digits = _SEPARATORS.sub("", mantissa)
    value = Fraction(digits) if "." in digits else Fraction(int(digits))  # several times faster for whole numbers
    return value * Fraction(10) ** int(exponent) if exponent else value


def _is_negative(text: str, start: int) -> bool:
    """Return whether a minus before the number is its sign, and not an operator, part of a range, or a bullet."""
    before = text[max(0, start - 20) : start].rstrip(_CURRENCY)
    if before.rstrip().lower().endswith(("negative", "minus")):
        return True
    is_apart = before.endswith(" ")
    before = before.rstrip(" ").rstrip(_CURRENCY)
    if not before or before[-1] not in _MINUS:
        return False
    before = before[:-1]
    operand = before.rstrip(f" {_CURRENCY}")[-1:]
    if is_apart:
        return operand in ("", "=", ":", "(")
    return (
        not (operand.isalnum() and before[-1:] == operand) and not operand.isdigit() and operand not in (")", "}", "%")
    )
