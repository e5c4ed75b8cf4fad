#!/usr/bin/env bash
# `rayzero train` as the entrypoint of a RayJob, whose backoffLimit starts again whatever does not end with 0. A run that was stopped
# as hopeless (health.stop_after, exit code 3) would end so again: its job has done what was asked, and says why in its log.
set -euo pipefail

HOPELESS=3    # rayzero's exit code

code=0
rayzero train "$@" || code=$?
if ((code == HOPELESS)); then exit 0; fi
exit "$code"
