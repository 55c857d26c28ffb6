# Sourced by test_interop.sh, and by whoever runs bench_train.py beside the peers: makes .venv-interop in the clone, once,
# with SAELens, sparsify, dictionary_learning, overcomplete, Llamascopium and SAEDashboard beside this project, and puts it
# on the PATH.
# PYTHON chooses the interpreter (3.11 or 3.12); SAE_INTEROP_VENV another place for the environment.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${SAE_INTEROP_VENV:-$root/.venv-interop}"
python="${PYTHON:-python3}"

# The stamp holds what was installed from; the same inputs install nothing again.
wanted="$(cat "$root/pyproject.toml" "$root/constraints-interop.txt" "${BASH_SOURCE[0]}" | cksum) $root"
if [ "$(cat "$venv/.installed" 2>/dev/null)" != "$wanted" ]; then
  echo "Installing the peer libraries into $venv (a few minutes the first time) ..."
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
  install=("$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --constraint "$root/constraints-interop.txt")
  "${install[@]}" --editable "$root" sae-lens eai-sparsify scikit-learn pillow pytest scipy matplotlib marshmallow typing-inspect
  # What these ask for beyond the above serves their subjects, pictures and servers (an old nnsight, OpenCV, torchvision,
  # MongoDB), or is older than what SAELens asks for (TransformerLens 2). Their
  # dictionaries, training and dashboards do without: scripts/peers.py imports those parts alone.
  "${install[@]}" --no-deps dictionary-learning overcomplete llamascopium sae-dashboard decode-clt dataclasses-json eindex-callum
  echo "$wanted" > "$venv/.installed"
fi
export PATH="$venv/bin:$PATH"
cd "$root"
