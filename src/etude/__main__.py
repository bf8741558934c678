"""`python -m etude`."""

import sys

if not sys.flags.safe_path:
    del sys.path[
        0
    ]  # the working directory: a file `random.py` that lies there would be taken for the library's

from etude.launch import main

main()
