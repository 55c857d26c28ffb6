"""Fill an activation store; the same as `sae harvest`."""

import sys

from sae.cli import main

if __name__ == "__main__":
    sys.exit(main(["harvest", *sys.argv[1:]]))
