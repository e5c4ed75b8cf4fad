"""The words in which a solver speaks about its own work, by the behaviour that they show (markers.py applies them).

A word problem is full of the same words about something else (``will wait for 10 minutes``, ``try to escape``), so a
rule also says what stands before and after its word. All quantifiers are bounded: the text is untrusted.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Rule(NamedTuple):
    """A word that shows a behaviour where both patterns match, in a text without capitals and typographic signs."""

    word: str
    after: re.Pattern[str]
    """Matches from the word on."""
    before: re.Pattern[str] | None
    """Matches up to the word."""
    reach: int
    """Characters before the word that ``before`` sees."""


def _rule(word: str, after: str = "", before: str | None = None) -> Rule:
    """Return a rule; without ``after`` it asks for the whole word."""
    pattern = after or rf"(?<!\w){re.escape(word)}\b"
    found = re.compile(rf"(?:{before})$") if before else None
    return Rule(word, re.compile(pattern), found, 110 if before and _WITHIN in before else 60)


def _rules(words: str, after: str, before: str | None = None) -> tuple[Rule, ...]:
    """Return a rule for each of the words, with what stands behind it, not from it on."""
    return tuple(_rule(word, re.escape(word) + after, before) for word in words.split("|"))


# Before a word.
_SENTENCE = r"(?:^|[.!?:\n>*)-])[ \t*]{0,3}"
_CLAUSE = (
    r"(?:^|[.!?:;,\n>*()-])[ \t*]{0,3}(?:(?:and|but|so|then|and then|now|next|finally|okay|ok|oh|no|hmm|well|after|by"
    r"|also|or|yes),? )?"
)
_WE = r"\b(?:let me|let's|let us|we|i|i'll|we'll|i'd|first's|another's)\b"
_MODAL = r"(?:,? (?:will|can|could|should|must|need to|have to|might|may|now|also|just|first|quickly|then)){0,3}"
_WE_DO = rf"{_WE}{_MODAL} "
_WITHIN = r"[^.!?\n]{0,90}"
_IT = r"\b(?:this|that|it|which|these|they)\b(?: -?\d[\d.,]{0,9})?"
_NOUN = r"\b(?:result|answer|value|sum|total|product|expression|solution|approach|combination)\b"
_RESULT = rf"(?:{_IT}|{_NOUN}|-?\d\)?)"
_VERY = r"(?:,? (?:also|still|however|indeed|now|only|quite|very|much|just|even|again|all|close|exactly|really),?){0,3}"
_BE = r"(?:'s| is| was| are| would be| seems| seems to be| looks| ca not be| cannot be)"
_IS = rf"{_VERY}{_BE}(?: not)?{_VERY} "
_ASKED = r"\b(?:is|was) (?:this|that|it) "
_DOES = r"(?: does| do| did| will| would| ca| can| wo)?"
_HAVE = r"\b(?:i|we)(?:'ve| have)? "
_EQUALS_NUMBER = r"=[ $]{0,2}-?\d[\d.,]{0,9}\)?[.,;:!?)]{0,2} {1,2}"
_LINE_NUMBER = r"(?:^|\n)[ \t>#*(-]{0,8}\d{1,2}"
_TRACE = r"=\d{1,9}"
"""The tiny recipe's traces judge an attempt like this: ``9+3=12: 12*7=84 no, 12-7=5 no``."""

# After a word.
_NOT_OF_A_STORY = r"\b(?! (?:at|for|from|in|on|out|with|as|during|h|th|\d))"
_TARGET = r"(?: exactly)? {1,2}(?:the |our )?(?:exact )?(?:target|result|answer|value|goal|-?\d)"
_STEP = (
    r"(?:ly|'s| of all)?,? {0,2}(?:let|we|i|you|try|find|calculate|compute|determine|add|subtract|multiply|divide"
    r"|convert|combine|solve|use|consider|figure|note|simplify|substitute|take|get|look|count|set|write|plug|evaluate"
    r"|round|start|break|identify|draw|list|work)\b"
)
_OPERATOR = (
    r"(?<!\b[a-z])(?<!\b[a-z] )(?<!\d[a-z])(?<!\d[a-z] )"  # an unknown is no number
    r"(?:[-+*/^×·÷⋅∗]|\\times|\\cdot|\\div|(?<![a-z])x(?![a-z]))"
)
_NUMBER = r"\.?\d[\d.,:]{0,15}"

VERIFICATION = (
    _rule("not ", r"not (?:equal|-?\d)", r"(?:^|[\n(])[ \t]{0,4}"),
    _rule("not ", r"not (?:exactly|quite|there|equal|enough|-?\d)", r"\bbut (?:it is |it's |is |but )?"),
    _rule(
        "not ",
        rf"not{_VERY} (?:equal|the (?:target|answer|right)|right\b|enough|valid|there|available|allowed|possible"
        r"|in the list|what we|-?\d)",
        rf"{_RESULT}{_IS}",
    ),
    _rule(
        "not ",
        rf"not{_VERY} (?:equal|match|satisfy|evaluate|add up|(?:work|help){_NOT_OF_A_STORY}"
        rf"|(?:give|get|reach|make|yield|result)(?: us| me| in)?{_TARGET}"
        r"|use (?:the|each|every|all|both)\b[^.!?\n]{0,20}(?:number|once))",
        rf"(?:{_RESULT}|\bbut {{0,2}})(?:,[^.,!?\n]{{0,20}},)?{_VERY}{_DOES} {{0,2}}",
    ),
    _rule("too ", r"too (?:high|low|large|small|big|far|close|much|little|many|few)\b", _RESULT + _IS),
    _rule(
        "close",
        r"close(?:,? close)?(?:,? but| enough| to {1,2}(?:the |our )?target| to -?\d| than -?\d)",
        rf"{_RESULT}{_IS}(?:less )?|\bis -?\d{{1,9}} ",
    ),
    _rule("none", r"none\b[^.!?\n]{0,40} (?:give|equal|work|evaluate|match|result|reach|lead|yield|satisf)"),
    *_rules("correct|incorrect|wrong|off by", r"\b", f"{_RESULT}{_IS}|{_ASKED}"),
    _rule("right", r"right\b(?! (?:now|next|after|before|in|on|angle|triangle|side|hand))", f"{_IT}{_IS}|{_ASKED}"),
    _rule("exactly", r"exactly (?:the|our|what|equal|correct|-?\d[\d.]{0,9}(?! ?[a-z]))", rf"{_IT}{_IS}(?:also )?"),
    *_rules("works|matches|fails|satisfies|adds up", _NOT_OF_A_STORY, rf"(?:{_IT}|{_NOUN}|\bfinally),?{_VERY},? "),
    _rule("holds", r"holds(?: true)?(?=[.!,;]|$)", rf"{_IT} |\bequations? "),
    _rule("check", r"check\b(?! (?:in|out)\b|-)", rf"(?:{_WE_DO}|(?:{_CLAUSE})to )(?:double[- ]?|re-?|cross[- ]?)?"),
    _rule("check", r"check(?:ing|s|ed)?\b", r"\b(?:double|cross|sanity|quick|as a)[- ]?|\bre-?"),
    _rule(
        "check",
        r"check(?:ing)?:|checks out|checking (?:if|whether|that|this|our|my|the (?:answer|result|solution))\b"
        r"(?! (?:we|i) can)",
    ),
    _rule("verif", r"verify\b", rf"{_WE_DO}|\bto |{_SENTENCE}"),
    _rule("verif", r"verifying|verification|verified"),
    _rule("confirm", r"confirms?\b", rf"{_WE_DO}|(?:{_CLAUSE})to |\b(?:this|which|that) "),
    _rule("sure", "", rf"(?:{_CLAUSE})to (?:be|make) |{_WE} (?:just )?make "),
    _rule(
        "back",
        r"back\b[^!?\n]{0,60}(?:(?<![-+*/×]) (\d{1,9}) ?= ?\1\b|true)",
        r"\b(?:substitut|plug)\w{0,5}\b[^.!?\n]{0,60} ",
    ),
    _rule("target", "", rf"{_IT}{_IS}(?:more|less|greater|larger|smaller|higher|lower|bigger) than (?:the|our) "),
    _rule("target", "", r"\b(?:equals?|exceeds|overshoots|misses|hits) (?:to )?(?:the|our) "),
    _rule("sense", "", rf"{_RESULT} (?:makes?|does not make) "),
    _rule("contradict", r"contradicts|contradiction"),
    *_rules("as required|as expected|as desired", r"\b", ", "),
    *_rules("yes|no", r"[.,!\n]", _EQUALS_NUMBER),
    _rule("yes", r"yes[,!]", _SENTENCE),
    *_rules("✓|✔|✗", ""),
    *_rules(" yes| no", r"\b", _TRACE),
)

BACKTRACKING = (
    _rule(
        "wait",
        r"wait(?:[,.!:…]| {0,2}- |,? (?:a (?:minute|moment|second)|i|no|that|this|maybe|actually|but|let)\b)",
        _CLAUSE,
    ),
    _rule("hmm", r"(?<!\w)hmm"),
    *map(_rule, ("oops", "second thought", "scratch that", "strike that", "hang on", "backtrack", "my mistake")),
    _rule("hold on", r"hold on\b(?! to)", _CLAUSE),
    _rule("scratch", "", r"\bfrom "),
    _rule("dead end", "", rf"{_RESULT}{_IS}a "),
    *_rules("never mind|forget that", r"\b", _CLAUSE),
    _rule("correction:", "correction:", _SENTENCE),
    _rule("mis", r"mis-?(?:read|count|calculat|underst|interpret|took|spoke)", _HAVE),
    *_rules("mistake|error", r"\b", rf"{_HAVE}(?:made|see) (?:a|an|the|my|our) (?:\w{{1,15}} )?"),
    _rule(
        "re",
        r"re-?(?:think|consider|do|start|examine|evaluate|visit|phrase|calculate|compute)\b",
        _WE_DO,
    ),
    _rule("correct", r"correct (?:that|this|it|my)\b", _WE_DO),
    *_rules("again|over", r"\b", rf"{_WE_DO}(?:try|start|begin)(?: this| it| all)? "),
    _rule("back", r"back\b(?! (?:the|from|home|-?\d))", rf"{_WE_DO}(?:go|step|come) "),
    _rule("back to", r"back to (?:the drawing board|square one)"),
    *_rules(
        "correct|right", r"\b(?! (?:angle|triangle|side))", rf"{_IT}{_VERY}(?:{_BE} (?:not{_VERY} |in)|{_BE}(?<=be) )"
    ),
    _rule("wrong", "", rf"{_IT}{_VERY}{_BE}{_VERY} (?:the )?|\b(?:i|we) (?:was|were|went) "),
    *_rules("work|help", _NOT_OF_A_STORY, rf"(?:{_RESULT}|\bbut {{0,2}}){_WITHIN} not{_VERY} "),
    _rule("instead", r"instead\b(?! of)", rf"{_WE}{_WITHIN}[ ,]"),
    _rule("instead", r"instead,? (?:let|we|i|try|use|consider)\b"),
    *_rules(
        "approach|way|method|strategy|order|idea|route",
        r"\b(?! (?:is|are|would|could|might))",
        rf"(?:{_WE}|\btry|\btrying){_WITHIN}\b(?:another|different|other|new|alternative|simpler|better|easier) "
        r"(?:\w{1,15} )?",
    ),
    *_rules("actually|no", r",? (?:no|wait|let|i|we|that's|that is|this is|the (?:answer|question))\b", _SENTENCE),
    _rule(" no\n", r" no\n[ \t]{0,4}\d", _TRACE),
)

STEP_BY_STEP = (
    _rule("step", r"step[- ]by[- ]step\b|step (?:\d{1,3}|one|two|three)\b"),
    _rule("steps", "", r"\b(?:following|these) "),
    _rule("step", r"step (?:is|would|will)\b", r"\b(?:first|next|second|third|final|last) "),
    *_rules(".|)", r"\*{0,2} {1,3}\S", _LINE_NUMBER),
    *_rules("first|second|third|next|finally|last", _STEP, _SENTENCE),
    _rule("first", "", _WE_DO),
    _rule(
        "=",
        rf"= ?\$?(\d{{1,9}})(?![\d.]{{0,9}}\d)[^=]{{1,80}}(?:(?<![\d.])\1 ?{_OPERATOR}|{_OPERATOR} ?\$?\1(?![\d.]))"
        r"[^=\n]{0,20}=",
        r"[\d)] ?",
    ),
)

EXPLORATION = (
    *_rules("try", r"(?:ing)?\b", rf"(?:{_WE}|\banother\b|\bafter\b){_WITHIN}\W|{_CLAUSE}"),
    _rule(
        "try",
        r"try(?:ing)? (?:to )?(?:use|get|make|reach|find|combine|add|subtract|multiply|divide|apply|form|solve)\b",
    ),
    _rule("see ", r"see (?:if|whether|what happens)\b"),
    _rule("check", r"check(?:ing)? (?:if|whether) (?:we|i) can\b"),
    *map(_rule, ("alternatively", "what if", "how about")),
    *_rules("maybe|perhaps", r"\b", _CLAUSE),
    _rule(
        "another",
        r"another (?:\w{1,15} )?(?:way (?:is|to|would)|approach|option|possibility|method|strategy|idea|combination"
        r"|possible)\b",
    ),
    _rule(
        "one ",
        r"one (?:\w{1,15} )?(?:way|approach|option|possibility|method|strategy|idea|possible)\b(?: \w{1,15}){0,6} is\b",
    ),
    _rule("also", r"also,? (?:need to )?consider\b", rf"{_WE}{_MODAL},? "),
    _rule("or ", r"or (?:we|i) (?:can|could|might)\b"),
    _rule("could", r"could (?:also|instead|use|try|add|subtract|multiply|divide|combine|start)\b", r"\b(?:we|i) "),
    *_rules("explore|test", r"\b", _WE_DO),
    _rule(
        "different",
        r"different(?:ly| (?:\w{1,15} ){0,2}(?:combination|order|way|approach|method|operation))",
        rf"(?:{_WE}|\bby\b|\btry){_WITHIN}\W",
    ),
    _rule("suppose", r"suppose (?:we|i)\b"),
    _rule(" no", r" no(?:,[ \t]|\n)[ \t]{0,4}\d", _TRACE),
)

SHOWS_CALCULATION = (
    *_rules(
        r"=|≈|\approx",
        r"[ \t$(<~-]{0,6}\.?\d",
        rf"(?:{_OPERATOR}|% of)[ \t($]{{0,4}}{_NUMBER}%?[ \t]?[a-z]{{0,15}}(?:[ /][a-z]{{2,15}}){{0,3}}[ \t)]{{0,4}}"
        r"|(?:√|\\sqrt\{?)\d{1,9}\}?[ \t]?|\\frac\{\d{1,9}\}\{\d{1,9}\}[ \t]?|\d![ \t]?",
    ),
    _rule("=", rf"= ?\$?{_NUMBER} ?{_OPERATOR} ?\$?\d", r"(?<![-+*/^\d.,a-z(])\d[\d.,]{0,15} ?"),
)
