#!/usr/bin/env bash
# Golden tests of the file formats beside the peer libraries themselves, in an environment of their own.
# With --fixtures as first argument it writes the stored fixtures of the default test run anew instead.
# Other arguments go to pytest: scripts/test_interop.sh -k sparsify
source "$(dirname "${BASH_SOURCE[0]}")/interop_environment.sh"
export HF_HUB_OFFLINE=1
if [ "${1:-}" = "--fixtures" ]; then
  fixtures=tests/dictionaries/formats/fixtures
  rm -rf "$fixtures"
  exec python -W ignore -m tests.interop.peer_files "$fixtures"
fi
exec python -m pytest tests/interop "$@"
