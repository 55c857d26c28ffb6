#!/usr/bin/env bash
# The main job, small: harvest, train, evaluate and look, on the built-in language model and the built-in CLIP model.
# Starts from Python and pip, needs no network after the installation. A second run does the job again, at once.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
out="runs/quickstart"
rm -rf "$out"

run() {  # show a command, then run it
  echo "\$ $*"
  "$@"
}

echo
echo "== 0. Ground truth: five concepts in two neurons (Toy Models of Superposition)"
run python scripts/pentagon.py "$out/pentagon"

echo
echo "== 1. A language model: 512 MLP neurons of a one-layer transformer trained on Python source"
run sae harvest configs/harvest-stdlib-1l.yaml --out "$out/stdlib-1l/store" --inputs.n-examples 3072
run sae harvest configs/harvest-stdlib-1l-score.yaml --out "$out/stdlib-1l/store-score" --inputs.n-examples 512
run sae train configs/train-stdlib-1l.yaml --store "$out/stdlib-1l/store" --out "$out/stdlib-1l/run" --n-vectors 600000
run sae evaluate configs/evaluate-stdlib-1l.yaml --dictionary "$out/stdlib-1l/run/dictionary" \
  --store "$out/stdlib-1l/store-score" --out "$out/stdlib-1l/run" --n-spliced-examples 128 \
  --n-labelled-examples 400

echo
echo "== 2. A CLIP model: the last stage of a ResNet trained on a rendered world of concepts"
run sae harvest configs/harvest-concepts-clip.yaml --out "$out/concepts-clip/store" --inputs.n-examples 10240
run sae harvest configs/harvest-concepts-clip-score.yaml --out "$out/concepts-clip/store-score" --inputs.n-examples 4096
run sae train configs/train-concepts-clip.yaml --store "$out/concepts-clip/store" --out "$out/concepts-clip/run" --n-vectors 500000
run sae evaluate configs/evaluate-concepts-clip.yaml --dictionary "$out/concepts-clip/run/dictionary" \
  --store "$out/concepts-clip/store-score" --out "$out/concepts-clip/run" --n-spliced-examples 1024

echo
echo "== 3. What came out"
python scripts/quickstart_summary.py "$out"
