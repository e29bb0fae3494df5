"""Where the project stands, for tests that run its commands or read its files."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ASCEND = os.path.join(ROOT, "tests", "support", "ascend")  # PYTHONPATH of a rank on simulated NPUs
