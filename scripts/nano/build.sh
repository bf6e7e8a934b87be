#!/bin/sh
# Data and weights of matryo-nano: build.sh CACHE OUTPUT [--quick]. Run it again to continue.
set -e
cache=${1:?usage: build.sh CACHE OUTPUT [--quick]}
output=${2:?usage: build.sh CACHE OUTPUT [--quick]}
cd "$(dirname "$0")/../.."
python -m scripts.nano.corpus "$cache" $3
stages=$(python -m scripts.nano.stages "$cache" "$output" $3)  # in `for`, its failure is not seen
for stage in $stages; do
    [ -d "$output/$stage/hf" ] || python -m matryo train "$output/$stage.yaml"
    last=$stage
done
echo "$output/$last/q8"
