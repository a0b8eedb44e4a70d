"""The command line as ``python -m bats_lab``."""

import sys

from bats_lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
