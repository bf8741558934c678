"""Every bench, one after the other: `make bench`. Results go to bench/results/*.json. Takes about an hour."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHES = ("step.py", "trust.py", "trust_runs.py")

for name in BENCHES:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, name], cwd=HERE, check=True)
