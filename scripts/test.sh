#!/usr/bin/env bash
# Run every test that needs neither a GPU nor a network, from a bare machine with Python and pip.
# Arguments go to pytest: scripts/test.sh tests/activations -x
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
source "$(dirname "${BASH_SOURCE[0]}")/chromium.sh"
exec python -m pytest "$@"
