r"""Split short answers into words, operators and signs, so that answers with the same meaning become equal.

Case, punctuation, spaces and the articles a, an, the do not count (as in SQuAD's exact match). Encodings of accents,
bold type, bullets, thousands commas, full stops in initials and hyphens in words do not count either. Operators and
signs count, in any spelling: ``−`` is ``-``, ``×`` and ``\times`` are ``*``, ``≤`` is ``<=``, ``**`` is ``^``, and the
2 of ``x²`` is ``^2``. Brackets count if they group the operands of an expression.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

_ARTICLES = frozenset({"a", "an", "the"})
_ALL = [(character, unicodedata.category(character)) for character in map(chr, range(0xA0, 0x10000))]
_COMBINING = "".join(re.escape(character) for character, category in _ALL if category in ("Mn", "Mc"))
"""Characters that combine with a letter, such as the vowels of Hindi and Thai. ``\\w`` does not match them."""
_MATHEMATICAL = "".join(re.escape(character) for character, category in _ALL if category == "Sm")
_LETTERS = rf"(?:[^\W_][{_COMBINING}]*)+"
_WORD = re.compile(
    rf"{_LETTERS}(?:['.]{_LETTERS})*"
    r"|(?<![^\W_])\.[0-9]+"  # .5
    r"|(?<=[0-9)])!(?![\w=])|(?<![^\W_]{2})(?<=[^\W_])!(?![\w=])|(?<![^\s(`])!(?=[\w(])"  # 5!, n! and !x
    r"|(?<=[0-9]):(?=[0-9])"  # 1:2
    r"|(?<=[^\W_])#"  # C#
    r"|->|<-|[=!<>:]=|=>"
    rf"|[-+*/=<>^%|~&()\[\]{_MATHEMATICAL}←-⇿♔-♯]"  # arrows, chess, cards, music; no emoji, which decorate
)
_ONLY_WORDS = re.compile("[A-Za-z0-9 ]+")
"""Most answers match this, and need none of the rewriting below."""
_BULLET = re.compile(
    r"^[ \t]*(?:[*•]|#{1,6}|[-+−–—](?=[ \t]+[^\W\d_])|[-+](?=[^\n]*\n)|(?<=\n)[-+])[ \t]+(?=[^\W_])", re.MULTILINE
)
"""A bullet, or the sign of a heading. ``- 5`` alone is a number."""
_REWRITES = (
    # Bold type, also if it begins or ends outside the answer. The remaining ``**`` are powers.
    ("*", re.compile(r"(?<![\w*)])(\*{1,3})(?=\S)([^*]+\*?)(?<=\S)\1(?![\w*(])"), r"\2"),
    ("**", re.compile(r"\A\s*\*\*(?=\w)|\*\*[\s.,;:!?]*\Z"), ""),
    ("**", re.compile(r"(?<=[\w)])\s?\*\*\s?(?=[\w(-])"), "^"),
    ("<", re.compile(r"<(?=[^\W\d_])([\w ]+)>"), r"\1"),
    (".", re.compile(r"(?<![^\W_][^\W\d_])(?<=[^\W\d_])\. ?(?=[^\W\d_]\.)"), ""),  # initials
    (",", re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""),
    # A hyphen between words, not a minus between operands; then a dash.
    ("-", re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W_])|(?<=[^\W_])-(?=[^\W\d_]{2})"), " "),
    ("-", re.compile(r"(?<=[^\W\d_]{2}) -{1,2} (?=[^\W\d_]{2})"), " "),
)
"""For each rewriting: a sign that the text must contain, the pattern, and its replacement."""
_SUPERSCRIPT = re.compile("[⁺⁻⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]*[⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ]")
_VULGAR = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞])")
_SPELLINGS = {
    **dict.fromkeys("−‐‑‒–﹣－", "-"),
    **dict.fromkeys("×⋅·∙∗", "*"),
    **dict.fromkeys("÷∕⁄", "/"),
    **{"≠": "!=", "≤": "<=", "≥": ">=", "→": "->", "⇒": "=>", "←": "<-", "♯": "#", "—": " ", "’": "'", "＆": "&"},
    **{"¬": "!", "∧": "&", "∨": "|"},
}
_TRANSLATION = str.maketrans(_SPELLINGS)
_LATEX = {
    name: f" {sign} "
    for sign, names in {
        **{"*": "times cdot ast", "/": "div", "!=": "neq ne", "<=": "leq le", ">=": "geq ge", "<": "lt", ">": "gt"},
        **{"->": "to rightarrow", "&": "land wedge", "|": "lor vee", "!": "neg lnot", "": "left right"},
        **{"±": "pm", "√": "sqrt", "∞": "infty", "∈": "in", "∪": "cup", "∩": "cap", "≈": "approx"},
    }.items()
    for name in names.split()
}
_LATEX_OPERATOR = re.compile(rf"\\({'|'.join(sorted(_LATEX, key=len, reverse=True))})(?![A-Za-z])|\\([%#&_$])")
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]{0,100})\}\{([^{}]{0,100})\}")
_COMMAND = re.compile(r"\\[a-zA-Z]{1,20}(?=\{)")
_OPERATORS = frozenset(["<=", ">=", "!=", "==", *"-+*/=<>^|~±√∈&"])
_BRACKETS = frozenset("()[]")


def without_bullets(text: str) -> str:
    """Return the text without bullets and the signs of headings."""
    return text if _ONLY_WORDS.fullmatch(text) else _BULLET.sub("", text)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words in lower case, operators and signs, without articles; ``and`` for ``&``."""
    if _ONLY_WORDS.fullmatch(text):
        return _without_articles(text.casefold().split())
    if "\\" in text:
        text = _FRACTION.sub(r"\1/\2", text)
        text = _COMMAND.sub(" ", _LATEX_OPERATOR.sub(lambda match: match[2] or _LATEX[match[1]], text))
    plain = text
    if not plain.isascii():
        plain = _SUPERSCRIPT.sub(r"^\g<0>", _VULGAR.sub(" ", plain)).translate(_TRANSLATION)
        plain = unicodedata.normalize("NFKC", plain).translate(_TRANSLATION)
    for sign, pattern, replacement in _REWRITES:
        if sign in plain:
            plain = pattern.sub(replacement, plain)
    words = _without_brackets(_WORD.findall(plain.casefold()))
    if words[:1] == ["="]:  # ``= 5``
        words = words[1:] or words
    return _without_articles(words) or tuple(text.casefold().split())  # punctuation alone is its own word


def _without_articles(words: list[str]) -> tuple[str, ...]:
    """Return the words without articles; ``A`` is a name if no word follows it: vitamin A, A+, a - b."""
    followed = zip(words, [*words[1:], ""], strict=False)
    return tuple(
        "and" if word == "&" else word
        for word, following in followed
        if word not in _ARTICLES or not following[:1].isalnum()
    )


def _without_brackets(words: list[str]) -> list[str]:
    """Return the words without brackets, except brackets that group operands, as in ``(a+b)*c``."""
    if _BRACKETS.isdisjoint(words):
        return words
    bare = [word for word in words if word not in _BRACKETS]
    if _OPERATORS.isdisjoint(bare[1:]):
        return bare
    while len(words) > 2 and _are_enclosed(words):
        words = words[1:-1]
    return words


def _are_enclosed(words: list[str]) -> bool:
    """Return whether the first word opens a bracket that the last one closes."""
    depths = list(accumulate((word in "([") - (word in ")]") for word in words))
    return depths[-1] == 0 and all(depth > 0 for depth in depths[:-1])
