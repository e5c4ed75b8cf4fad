r"""Rewrite a mathematical answer, in plain text, unicode or LaTeX, into the LaTeX that equality.py parses.

``4√2`` becomes ``4\sqrt{2}``, ``5½`` becomes ``5\frac{1}{2}``, ``x != 5`` becomes ``x\neq 5``. Only mathematical mode,
spacing and the sizes of brackets are dropped, so that the parser still sees everything that it cannot read. The cost of
every function depends on the length of its text, which callers limit.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

_SYMBOLS = {
    **dict.fromkeys("−–‒﹣", "-"),
    **dict.fromkeys("×✕✖", "\\times "),
    **dict.fromkeys("·⋅∙•", "\\cdot "),
    **{"÷": "\\div ", "∗": "*", "∕": "/", "⁄": "/", "±": "\\pm ", "∓": "\\mp ", "∞": "\\infty ", "°": "^\\circ "},
    **{"≤": "\\le ", "≥": "\\ge ", "⩽": "\\le ", "⩾": "\\ge ", "≠": "\\neq ", "≈": "\\approx ", "∈": "\\in "},
    **{"∉": "\\notin ", "∪": "\\cup ", "∩": "\\cap ", "∖": "\\setminus ", "⊂": "\\subset ", "⊆": "\\subseteq "},
    **{"∅": "\\emptyset ", "…": "\\dots ", "⋯": "\\dots ", "→": "\\to ", "∣": "|", "′": "'", "’": "'"},
    **{"ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}"},
    **{"∑": "\\sum ", "∏": "\\prod ", "∫": "\\int ", "∠": "\\angle ", "√": "\\sqrt ", "∛": "\\sqrt[3] "},
    **{"∜": "\\sqrt[4] ", "⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil "},
    **{"\u200b": "", "\u2060": "", "\ufeff": ""},
}
_ROOT = re.compile(r"([√∛∜])\s*([0-9]+(?:\.[0-9]+)?|[A-Za-z](?![A-Za-z]))")
_ROOT_INDEX = {"√": "", "∛": "[3]", "∜": "[4]"}
_SLASHED = re.compile(r"([0-9]+)⁄([0-9]+)")
_GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|exp"
_REPEATING = re.compile(
    r"([0-9]{0,15})\.([0-9]{0,15})(?:\\(?:overline|bar|dot)\s*(?:\{([0-9]{1,15})\}|([0-9]))|\(([0-9]{1,15})\)(?=\s*\Z))"
)
_OPENS = re.compile(r"(?:\^|\\?sqrt|√)\s*\(")
_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"(?<!\\)\\\\(?=[A-Za-z]{2})(?![\s\S]*\\begin)", r"\\"),  # an escape too many
        (r"\\(?:begin|end)\{(?:equation|align|gather|aligned)\*?\}", " "),
        (r"\\left(?![A-Za-z])\s*\.?|\\right(?![A-Za-z])\s*\.?|\\[bB]igg?[lr]?(?![A-Za-z])", ""),
        (r"\\(?:displaystyle|textstyle|limits|nolimits|hfill|phantom\{[^{}]*\})(?![A-Za-z])", " "),
        (r"(?<!\\)\\!\s*", ""),
        (r"\{,\}", ","),
        (r"(?<!\\)\\[;: ,]|~|\\q?quad(?![A-Za-z])|\\(?:thin|med|thick|en)?space(?![A-Za-z])", " "),
        (r"(?<!\\)\\[()\[\]]|\$", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\d?binom(?![A-Za-z])|\\tbinom(?![A-Za-z])", r"\\binom"),
        (r"\\(?:ldots|cdots|dotsc|dotsb|hdots)(?![A-Za-z])|\.{3,}", r"\\dots "),
        (r"\\(?:math|text)(?:rm|it|bf|sf|normal|up)\s*\{\s*([A-Za-z])\s*\}", r" \1 "),
        (r"\\(?:mathrm|mathit|mathbf|mathsf|textrm|textit|textbf|textnormal|mbox|operatorname\*?)\s*(?=\{)", r"\\text"),
        (r"\\textdegree|\\degree|\\text\s*\{\s*degrees?\s*\}", r"^\\circ "),
        (r"\\(?:leqslant|leqq|leq)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geqslant|geqq|geq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\not\s*=|\\ne(?![A-Za-z])|!=|/=|<>", r"\\neq "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\varnothing(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\backslash(?![A-Za-z])", r"\\setminus "),
        (r"\*\*", "^"),
        (r"(?<![A-Za-z\\])pi(?![A-Za-z])", r"\\pi "),
        (rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])(?=\s*[({{\\0-9]|\s+[a-z](?![A-Za-z]))", r"\\\1 "),
        (r"(?<![A-Za-z\\])(?:infinity|infty|inf|oo)(?![A-Za-z])", r"\\infty "),
        (r"(?<![A-Za-z\\])sqrt(?=[0-9\s({\[])", r"\\sqrt"),
        (
            r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?-?\d\}?)?\s*[({]?\s*)(\d{1,6}(?:\.\d{1,6})?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})",
            r"\1{\\frac{\2\\pi}{180}}",
        ),
        (r"\^\s*(?:\\circ(?![A-Za-z])|\{\s*\\circ\s*\})", " "),
        (r"\\text\s*\{\s*\}", " "),
        *(
            (rf"(?<=[0-9])\s*(?:\\text\s*\{{\s*)?{word}(?![A-Za-z])\s*\}}?", rf" \\cdot 10^{{{power}}} ")
            for word, power in (("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12))
        ),
        (r"(?<![0-9.])([0-9]{1,9}) +([0-9]{1,9}) ?/ ?([0-9]{1,9})(?![0-9.])", r"\1\\frac{\2}{\3}"),
        (r"\(([0-9A-Z]+)\)(?=_)", r"\1"),
        (r"(?<=[0-9])_\(?([0-9]{1,2})\)?(?![0-9}])", r"_{\1}"),
        (r"\\frac\s*([0-9])\s*([0-9])(?![0-9])", r"\\frac{\1}{\2}"),
    ]
]
_SPACES = re.compile(r"\s+")
_ALONE = re.compile(r"(?<![0-9]) | (?![0-9])")


@lru_cache(maxsize=4096)
def in_latex(text: str) -> str:
    """Return the LaTeX of an answer, without mathematical mode and with single spaces."""
    if not text.isascii():
        text = _without_unicode(text)
    text = _REPEATING.sub(_fraction_of_repeating, text)
    text = _braced(text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _trimmed(_SPACES.sub(" ", text))


def spelling(latex: str) -> str:
    """Return rewritten LaTeX without spaces, except between two digits: ``1 2`` is not ``12``."""
    return _ALONE.sub("", latex)


def _trimmed(text: str) -> str:
    """Return the text without bold type, quotes or punctuation around it. An exclamation mark stays: a factorial."""
    before = ""
    while before != text:
        before = text
        text = text.strip(' \n`"').rstrip(",;:").removeprefix("**").removesuffix("**").removesuffix(".")
    return text


def _without_unicode(text: str) -> str:
    text = _ROOT.sub(lambda match: rf"\sqrt{_ROOT_INDEX[match[1]]}{{{match[2]}}}", text)
    text = _SLASHED.sub(r"\\frac{\1}{\2}", text)
    pieces = []
    for kind, characters in groupby(text, _kind):
        run = "".join(characters)
        if kind in ("<super>", "<sub>"):
            plain = "".join(_SYMBOLS.get(each, each) for each in unicodedata.normalize("NFKC", run))
            pieces.append(f"{'^' if kind == '<super>' else '_'}{{{plain}}}")
        elif kind == "<fraction>":
            pieces += [_vulgar_fraction(character) for character in run]
        else:
            pieces += [character if character.isascii() else _symbol(character) for character in run]
    return "".join(pieces)


def _kind(character: str) -> str:
    if character.isascii() or character in _SYMBOLS:
        return ""
    return unicodedata.decomposition(character).partition(" ")[0]


def _vulgar_fraction(character: str) -> str:
    over, _, under = unicodedata.normalize("NFKC", character).partition("⁄")
    return rf"\frac{{{over}}}{{{under}}}"


def _symbol(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    plain = unicodedata.normalize("NFKC", character)  # 𝑥 and full-width forms
    if plain.isascii():
        return plain
    greek = _GREEK.fullmatch(unicodedata.name(plain, "")) if len(plain) == 1 else None
    if greek is None:
        return _SYMBOLS.get(plain, plain)
    name = greek[2].lower().replace("lamda", "lambda")
    return f"\\{name if greek[1] == 'SMALL' else name.capitalize()} "


def _fraction_of_repeating(match: re.Match[str]) -> str:
    r"""Return ``0.1\overline{6}`` as the fraction 15/90."""
    whole, fixed = match[1] or "0", match[2]
    period = match[3] or match[4] or match[5]
    numerator = int(whole + fixed + period) - int(whole + fixed)
    return rf"\frac{{{numerator}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _braced(text: str) -> str:
    r"""Return the text with braces instead of parentheses in ``2^(n+1)`` and ``\sqrt(2)``."""
    position = 0
    while match := _OPENS.search(text, position):
        depth, start = 1, match.end()
        for end in range(start, len(text)):
            depth += (text[end] == "(") - (text[end] == ")")
            if depth == 0:
                text = f"{text[: start - 1]}{{{text[start:end]}}}{text[end + 1 :]}"
                break
        position = start
    return text
