# Sourced by the other scripts: makes .venv in the clone, once, and puts it on the PATH.
# PYTHON chooses the interpreter (3.11 or newer); SAE_VENV another place for the environment.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${SAE_VENV:-$root/.venv}"
python="${PYTHON:-python3}"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "sae needs Python 3.11 or newer; $("$python" --version) was found. Set PYTHON to a newer one." >&2
  exit 2
}

# The stamp holds what was installed from; the same inputs install nothing again.
wanted="$(cat "$root/pyproject.toml" "$root/constraints.txt" | cksum) $root"
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing into $venv (torch is large: a few minutes the first time) ..."
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
    --constraint "$root/constraints.txt" --editable "$root[all,test]"
  echo "$wanted" > "$venv/.installed"
fi
export PATH="$venv/bin:$PATH"
cd "$root"
