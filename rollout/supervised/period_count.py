"""Synthetic completions for Period count: a few plain sentences, from a grammar of about sixty words.

A trace is the text of one completion. After the opening `the old cat` it may be::

     sleeps quietly. my brave dog runs near the small house and waits.

Traces differ in the number of sentences and in their lengths. So the policy can end a sentence early and start another
one. It sometimes does both, and reinforcement learning can find that this is rewarded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rollout.config import TracesConfig
from rollout.prompts.config import PromptsConfig
from rollout.tasks.base import Problem
from rollout.tasks.period_count import ADJECTIVES, DETERMINERS, PeriodCountConfig, draw_opening, source

VERBS = ("sleeps", "runs", "sings", "waits", "jumps", "hides", "dances", "smiles", "walks", "looks")
ADVERBS = ("quietly", "slowly", "quickly", "again", "today", "alone", "outside", "here")
PREPOSITIONS = ("near", "behind", "under", "beside", "with", "above", "below", "past")
PLACES = ("river", "hill", "house", "garden", "boat", "tree", "road", "bridge")
CONJUNCTION = "and"


def traces(prompts: PromptsConfig, config: TracesConfig, seed: int) -> Iterator[tuple[Problem, str]]:
    """Yield endless openings that are not held out, each with a continuation. `config` is not used."""
    rng = random.Random(f"traces/{seed}")
    settings: PeriodCountConfig = prompts.settings
    openings = source(settings, prompts.num_held_out, prompts.seed)
    while True:
        problem = openings.draw(rng)
        yield problem, continuation(problem.fields["opening"], settings, rng)


def continuation(opening: str, config: PeriodCountConfig, rng: random.Random) -> str:
    """Return the rest of the opening's sentence, and up to `max_sentences` - 1 more sentences."""
    text = rest(opening, config, rng)
    for _ in range(rng.randint(1, config.max_sentences) - 1):
        subject = draw_opening(config.max_adjectives, rng)
        text += f" {subject}{rest(subject, config, rng)}"
    return text


def rest(subject: str, config: PeriodCountConfig, rng: random.Random) -> str:
    """Return the rest of a sentence after `subject`, from the space to the full stop."""
    num_words = len(subject.split())
    length = rng.randint(max(config.min_words, num_words + 1), config.max_words)
    return f" {' '.join([rng.choice(VERBS), *complements(length - num_words - 1, rng)])}."


def complements(num_words: int, rng: random.Random) -> Iterator[str]:
    """Yield `num_words` words that can follow a verb: places while there is room, then another verb or an adverb."""
    while num_words >= 3:
        size = rng.randint(3, min(num_words, 5))
        yield from [rng.choice(PREPOSITIONS), rng.choice(DETERMINERS)]
        yield from [*rng.sample(ADJECTIVES, size - 3), rng.choice(PLACES)]
        num_words -= size
    if num_words == 2:
        yield from [CONJUNCTION, rng.choice(VERBS)]
    elif num_words == 1:
        yield rng.choice(ADVERBS)
