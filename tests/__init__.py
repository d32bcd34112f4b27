"""The tests, the demo and the benchmark."""

import os
from pathlib import Path

os.environ.setdefault("VBACKUP_LAB", str(Path(__file__).parents[1] / ".lab"))  # see vbackup/testing/lab/README.md
