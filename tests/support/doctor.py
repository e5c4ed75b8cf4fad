"""What tests of the doctor share."""

from orchestrator.doctor.runner import Finding

NVIDIA_SMI = """#!/bin/sh
case "$1" in
--query-gpu*) echo "0, GPU-aa, NVIDIA GeForce RTX 4090, 24564, 24210, 8.9, Default, 580.65.06"
              echo "1, GPU-bb, NVIDIA GeForce RTX 4090, 24564, 3000, 8.9, Default, 580.65.06";;
--query-compute*) echo "GPU-bb, 4242, /opt/conda/bin/python3.11, 20874"; exit $USERS_FAIL;;
*) echo "| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0     |";;
esac
"""


def status_and_fix(finding: Finding, status: str, *words: str) -> None:
    """It has this status, and the words stand in its fix."""
    assert finding.status == status, finding
    assert finding.fix and all(word in finding.fix for word in words), finding
