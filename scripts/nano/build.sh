#!/bin/sh
# Rebuild matryo-nano: build.sh CACHE OUTPUT
set -e
here=$(dirname "$0")
cache=${1:?usage: build.sh CACHE OUTPUT}
output=${2:?usage: build.sh CACHE OUTPUT}
python "$here/fetch.py" "$cache"
python "$here/prepare.py" "$cache"
python "$here/train.py" "$cache" "$output"
python "$here/evaluate.py" "$output/hf" "$cache/heldout.jsonl" --json "$output/heldout.json"
