"""Make text from models and files safe for a terminal."""

from __future__ import annotations

import re
import unicodedata

KEPT = "\n\t\u200c\u200d"
"""Line ends, tabs, and the joiners in some scripts and emoji."""
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories that control a terminal or are invisible: control characters, direction marks, surrogates."""
PLAIN = re.compile(r"[\n\t\x20-\x7e]*")


def printable(text: str) -> str:
    """Return the text with a visible sign for each character that controls a terminal or is invisible.

    A model may write escape sequences, which move the cursor or change the title, and marks that reverse the direction
    of the following text.
    """
    if PLAIN.fullmatch(text):
        return text
    return "".join(map(shown, text))


def shortened(text: str, longest: int) -> str:
    """Return the first `longest` characters of a text as `printable` shows them."""
    return printable(text if len(text) <= longest else text[:longest] + " …")


def shown(character: str) -> str:
    """Return the character, or a visible sign for it."""
    if character in KEPT or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of the control character, such as ␛
    return "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
