"""Score a dictionary; the same as `sae evaluate`."""

import sys

from sae.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
