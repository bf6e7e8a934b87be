#!/bin/sh
# Rebuild the text-only model that ships now: build_text.sh CACHE OUTPUT
set -e
here=$(dirname "$0")
cache=${1:?usage: build_text.sh CACHE OUTPUT}
output=${2:?usage: build_text.sh CACHE OUTPUT}
python "$here/fetch.py" "$cache"
python "$here/prepare.py" "$cache"
python "$here/train.py" "$cache" "$output"
python "$here/evaluate.py" "$output/hf" "$cache/heldout.jsonl" --json "$output/heldout.json"
