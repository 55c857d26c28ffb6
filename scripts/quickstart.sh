#!/usr/bin/env bash
# The main job, small: harvest, train, evaluate and look, on the built-in language model and the built-in CLIP model.
# Starts from Python and pip, needs no network after the installation. A second run does the job again, at once.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -m scripts.quickstart
