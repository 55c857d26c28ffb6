# Sourced by scripts/test.sh: installs Chromium for the tests of pages, where it is missing and can be installed.
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing chromium for the tests of pages ..."
    (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium) >/dev/null || true
  fi
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
    echo "No chromium, and it cannot be installed here: the tests marked 'browser' are skipped." >&2
fi
