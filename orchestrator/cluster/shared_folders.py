"""Check before actors start that each node of a run sees the files that it will read and write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from orchestrator.cluster.calls import wait_for
from orchestrator.cluster.nodes import PlacementError
from orchestrator.cluster.placement import Placement
from orchestrator.cluster.seen_files import answer, appears, listing, token

LISTED = 3
"""Largest number of nodes and files that an error names."""


def check_folders(placement: Placement, model: str, written: Mapping[str, Path]) -> None:
    """Raise PlacementError where a node of the run lacks the model, or a learner's node a folder to write to.

    On a run of one node nothing is asked.

    Args:
        model: a folder, which every node may have for itself; a hub's name, which each node resolves, is not checked.
        written: folders that the driver and all learner ranks share, each by the setting that names it.
    """
    layout = placement.layout
    advice = "look at that node, its file system may hang"
    timeout_s = placement.start_timeout_s
    readers = placement.elsewhere({*layout.generators, *layout.ranks})
    if readers and (ours := listing(model)) is not None:
        calls = {node: _listing.options(**options).remote(model) for node, options in readers.items()}
        refuse_other_models(model, ours, wait_for(calls, "listing", timeout_s, advice))
    writers = placement.elsewhere(layout.ranks)
    for setting, folder in written.items() if writers else ():
        with token(folder) as name:
            calls = {
                node: _answer.options(**options).remote(folder, name, f"{name}-{index}")
                for index, (node, options) in enumerate(writers.items())
            }
            answers = wait_for(calls, "answer", timeout_s, advice)
            refuse_unshared(setting, folder, answers, [f"{name}-{index}" for index in range(len(calls))])


def refuse_other_models(model: str, ours: Mapping[str, int], theirs: Mapping[str, Mapping[str, int] | None]) -> None:
    """Raise PlacementError where a node's files of the model are not `ours`. None: it has no such folder."""
    wrong = []
    for node, files in theirs.items():
        if files is None:
            wrong.append(f"{node} has no such folder")
        elif differing := sorted(name for name in {*ours, *files} if ours.get(name) != files.get(name)):
            wrong.append(f"{node} has another {', '.join(differing[:LISTED])} there, or none")
    if wrong:
        raise PlacementError(
            f"not every node of the run has the model in {model}: {'; '.join(wrong[:LISTED])}. Put it on storage that "
            "all nodes mount at one path, or copy it to the same path of each; what a recipe builds or converts "
            "is in the folder that RAYZERO_CACHE names"
        )


def refuse_unshared(setting: str, folder: Path, answers: Mapping[str, str], names: list[str]) -> None:
    """Raise PlacementError if a node could not answer, or its file is not visible here."""
    wrong = [f"{node} {reason}" for node, reason in answers.items() if reason]
    wrong += [
        f"what {node} writes there is not visible here"
        for (node, reason), name in zip(answers.items(), names, strict=True)
        if not reason and not appears(folder / name)
    ]
    if wrong:
        raise PlacementError(
            f"{setting}: {folder} is not one folder on all nodes of the run's learner ranks, which write there: "
            f"{'; '.join(wrong[:LISTED])}. Mount storage that all nodes share at one path, and set {setting} to a "
            "folder of it"
        )


_listing: Any = ray.remote(listing)
_answer: Any = ray.remote(answer)
