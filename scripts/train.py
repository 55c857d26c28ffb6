"""Train a dictionary; the same as `sae train`."""

import sys

from sae.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
