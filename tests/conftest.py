import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models of a few thousand weights: a second thread only waits

import torch

torch.set_num_threads(1)
