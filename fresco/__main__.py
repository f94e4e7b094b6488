"""`python -m fresco` is the command line."""

import sys

from fresco.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
