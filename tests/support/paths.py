"""Where things lie that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
WARM_START = ROOT / "tests" / "data" / "countdown-warm-start"
"""The policy of countdown-tiny after its warm start."""
SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real data sets beside the repository; tests that need them skip where they are not."""
