#!/usr/bin/env bash
# A run on one RunPod pod with an RTX 4090, from a pod that has only a CUDA image of Python 3.11 or newer, such as RunPod's PyTorch
# template. In the pod's web terminal or over SSH, once the repository is in /workspace/rayzero:
#   bash /workspace/rayzero/deploy/runpod/train.sh countdown-4090 num_steps=100
# All that must outlive the pod is on its volume, /workspace: started again after the pod was stopped, the run resumes.
# STOP_POD=1 stops the pod when the run has ended, well or not, so that it costs no more. DRY_RUN=1 prints the commands only.
# Secrets: give the pod the variables WANDB_API_KEY and HF_TOKEN as RunPod secrets; nothing is written down here.
set -euo pipefail

VOLUME=${VOLUME:-/workspace}
RAYZERO_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
RECIPE=countdown-4090
if (($# > 0)) && [[ $1 != *=* ]]; then RECIPE=$1 && shift; fi    # settings may come without a recipe
DRY_RUN=${DRY_RUN:-0}
STOP_POD=${STOP_POD:-0}

say_or_do() {
    if [[ $DRY_RUN == 1 ]]; then printf '+ %s\n' "${*@Q}"; else "$@"; fi
}

stop_pod() {
    if [[ $STOP_POD == 1 && -n ${RUNPOD_POD_ID:-} ]]; then
        say_or_do runpodctl stop pod "$RUNPOD_POD_ID"
    fi
}
trap stop_pod EXIT

# A pod's own disk is lost with it, and is small.
export HF_HOME="$VOLUME/huggingface" RAYZERO_CACHE="$VOLUME/rayzero-cache" PIP_CACHE_DIR="$VOLUME/pip-cache"
cd "$RAYZERO_HOME"
say_or_do nvidia-smi --query-gpu=name,memory.total --format=csv,noheader
say_or_do make install
say_or_do .venv/bin/rayzero train "$RECIPE" runs_dir="$VOLUME/runs" "$@"
