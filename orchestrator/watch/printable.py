"""Text of models and files, fit for a terminal."""

from __future__ import annotations

import re
import unicodedata

KEPT = "\n\t\u200c\u200d"
"""Line ends, tabs, and the joiners that some scripts and emoji are written with."""
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories that say something to a terminal, or show nothing: controls, marks of direction, halves of a pair."""
PLAIN = re.compile(r"[\n\t\x20-\x7e]*")


def printable(text: str) -> str:
    """Return the text with a sign in place of each character that a terminal would obey, or that nobody can see.

    A model may write escape sequences, which move the cursor or change the title, and marks that turn the direction
    of what follows.
    """
    if PLAIN.fullmatch(text):
        return text
    return "".join(map(shown, text))


def shown(character: str) -> str:
    """Return the character, or a sign in its place."""
    if character in KEPT or unicodedata.category(character) not in HIDDEN:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # the picture of that control, such as ␛
    return "␡" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"
