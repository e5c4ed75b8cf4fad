"""Which transport carries the weights of a run, by where its actors are placed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from orchestrator.cluster.layout import Mode

TransportName = Literal["ray", "ipc", "nccl"]
BEST_TRANSPORT: dict[Mode, TransportName] = {"cpu": "ray", "colocated": "ipc", "pods": "nccl"}
"""What `auto` means where."""
UNFIT = {
    "ipc": "it passes buffers within a GPU that generator and learner share",
    "nccl": "it joins processes that have a GPU each",
}


def resolve_transport(setting: Literal["auto", "ray", "ipc", "nccl"], mode: Mode) -> TransportName:
    """`rollout.publish_backend` where generators and learner are placed as `mode` says.

    Raises ValueError for one that cannot work there.
    """
    best = BEST_TRANSPORT[mode]
    if setting in ("auto", "ray", best):
        return best if setting == "auto" else setting
    raise ValueError(
        f'rollout.publish_backend = "{setting}" does not work where placement is "{mode}": {UNFIT[setting]}; '
        f'set it to "{best}"' + ("" if best == "ray" else ' or "ray"') + ', or leave it at "auto"'
    )
