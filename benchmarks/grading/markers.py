"""Measure the markers on sentences of real completions that were labelled by hand.

    python -m benchmarks.grading.markers measure ../shared/data
    python -m benchmarks.grading.markers misses ../shared/data
    python -m benchmarks.grading.markers draw ../shared/data

``measure`` prints precision and recall of each marker on both halves. The labels (tests/data/marker-labels.jsonl) name
a sentence by its file, row and offset, and carry a hash instead of the text; one whose hash differs is an error.

``misses`` prints the sentences of the tuning half on which markers and labels disagree.

``draw`` prints the sentences to label, as JSON lines without labels. Of every distinct sentence of both files, where
numbers do not count as a difference, it draws by a seed: UNIFORM of each file, and of those that hold a CUE, as many
as stand there. Cues are broad and were written before any pattern: uniformly drawn, backtracking would be in one
sentence of a hundred. So precision and recall here are those of the enriched draw.

The halves: a hash that begins with an even digit is for tuning, an odd one for the report.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rewards.parts.markers import BEHAVIOURS, Agreement, markers

LABELS = Path(__file__).parents[2] / "tests/data/marker-labels.jsonl"
FIELDS = {"countdown_completions.jsonl": "completion", "gsm8k_model_solutions.jsonl": "solution"}
SEED = 12
UNIFORM = 60
CUES = {
    r"\b(?:check|verif|confirm|correct|right|wrong|equal|match|work|satisf|hold|not|too|close|none|yes|no|target)": 70,
    r"\b(?:wait|hmm|oops|but|however|another|different|instead|again|back|mistake|actually|realize|re-?consider"
    r"|re-?think|no longer|sorry)\b": 140,
    r"\b(?:first|second|third|next|finally|last|lastly|step|steps)\b|^[0-9]+[.)]": 70,
    r"\b(?:try|tries|trying|tried|alternativ\w*|other|another|different|option|options|maybe|perhaps|possib\w+|either"
    r"|what if|might|could|ways)\b": 70,
}  # fmt: skip
BOUNDARY = re.compile(r"(?<!\n[0-9]\.)(?<!\n[0-9][0-9]\.)(?<!Mr\.)(?<!Ms\.)(?<!Mrs\.)(?<!Dr\.)(?<=[.!?])[ \t]+|\n")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a completion. ``offset`` is in characters."""

    file: str
    row: int
    offset: int
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def read_sentences(folder: Path) -> list[Sentence]:
    """Return every sentence of the files, with a letter or a digit, in order."""
    return [
        Sentence(name, row, offset, text)
        for name, field in FIELDS.items()
        for row, line in enumerate((folder / name).read_text("utf-8").splitlines())
        for offset, text in split(json.loads(line)[field])
    ]


def split(text: str) -> Iterator[tuple[int, str]]:
    """Yield the offset and text of each sentence, up to the first special token."""
    text, start = text.partition("<|")[0], 0
    for end, after in [*(match.span() for match in BOUNDARY.finditer(text)), (len(text), len(text))]:
        sentence = text[start:end]
        if re.search(r"[A-Za-z0-9]", sentence):
            yield start + len(sentence) - len(sentence.lstrip()), sentence.strip()
        start = after


def draw(sentences: Sequence[Sentence]) -> list[Sentence]:
    """Return the sentences to label, as the module says."""
    distinct = {re.sub(r"[0-9]+(?:[.,][0-9]+)*", "0", each.text.lower()): each for each in reversed(sentences)}
    population = list(reversed(distinct.values()))
    chooser, drawn = random.Random(SEED), dict[str, Sentence]()
    strata = [(UNIFORM, [each for each in population if each.file == name]) for name in FIELDS]
    strata += [
        (count, [each for each in population if re.search(cue, each.text.lower())]) for cue, count in CUES.items()
    ]
    for count, found in strata:
        drawn |= {each.hash: each for each in chooser.sample(found, count)}
    return list(drawn.values())


def read_labels(sentences: Sequence[Sentence]) -> list[tuple[Sentence, frozenset[str]]]:
    """Return each labelled sentence with the behaviours it shows. Raises ValueError when the data is another."""
    at = {(each.file, each.row, each.offset): each for each in sentences}
    labelled = []
    for line in LABELS.read_text("utf-8").splitlines():
        label = json.loads(line)
        sentence = at.get((label["file"], label["row"], label["offset"]))
        if sentence is None or sentence.hash != label["hash"]:
            raise ValueError(
                f"{label['file']}, row {label['row']}, offset {label['offset']}: this is not the sentence that was "
                "labelled; measure on the files that the labels were made from"
            )
        labelled.append((sentence, frozenset(label["shows"])))
    return labelled


def is_report(sentence: Sentence) -> bool:
    """Return whether a sentence belongs to the half that is reported; the other is for tuning."""
    return int(sentence.hash[0], 16) % 2 == 1


def agreements(labelled: Sequence[tuple[Sentence, frozenset[str]]]) -> dict[str, Agreement]:
    """Return the agreement on each behaviour."""
    pairs = [(set(markers(each.text)), shows) for each, shows in labelled]
    return {
        name: Agreement(
            sum(name in found and name in shows for found, shows in pairs),
            sum(name in found for found, _ in pairs),
            sum(name in shows for _, shows in pairs),
        )
        for name in BEHAVIOURS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "draw", "misses"])
    parser.add_argument("folder", type=Path, help="folder that holds the data")
    arguments = parser.parse_args()
    sentences = read_sentences(arguments.folder)
    if arguments.what == "draw":
        for each in draw(sentences):
            print(json.dumps({**asdict(each), "hash": each.hash}))
        return
    labelled = read_labels(sentences)
    halves = {"tuning": [pair for pair in labelled if not is_report(pair[0])]}
    if arguments.what == "misses":
        show_misses(halves["tuning"])
        return
    halves["report"] = [pair for pair in labelled if is_report(pair[0])]
    for half, chosen in halves.items():
        print(f"{half}: {len(chosen)} sentences")
        for name, found in agreements(chosen).items():
            print(
                f"  {name:18} precision {found.num_both}/{found.num_marker} = {found.precision:.1%}, "
                f"recall {found.num_both}/{found.num_labels} = {found.recall:.1%}"
            )


def show_misses(labelled: Sequence[tuple[Sentence, frozenset[str]]]) -> None:
    """Print where markers and labels disagree: `+` shown by the marker alone, `-` by the label alone."""
    for each, shows in labelled:
        found = set(markers(each.text))
        if found != shows:
            print(*(f"+{name}" for name in found - shows), *(f"-{name}" for name in shows - found), "|", each.text)


if __name__ == "__main__":
    main()
