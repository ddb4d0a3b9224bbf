#!/usr/bin/env bash
# All runs of the table: run.sh SOURCE [SEED ...], for example: run.sh input.txt 1 2 3
# Finished runs are skipped, so that an interrupted series can be started again.
set -euo pipefail
source_path=$1
shift
here=experiments/e0001_tiny_shakespeare
declare -A variants=(
    [baseline]=""
    [rotary]="rotary"
    [rmsnorm]="rmsnorm"
    [gated_mlp]="gated_mlp"
    [qk_norm]="qk_norm"
    [muon]="muon"
    [modern]="rotary rmsnorm gated_mlp qk_norm"
    [modern_muon]="rotary rmsnorm gated_mlp qk_norm muon"
)
seeds=("$@")
[ ${#seeds[@]} -gt 0 ] || seeds=(1 2 3)
for seed in "${seeds[@]}"; do
    for name in baseline modern_muon modern muon rotary gated_mlp qk_norm rmsnorm; do
        run="e0001_${name}_seed${seed}"
        [ -e "logs/$run/finished" ] && continue
        overlays=()
        for overlay in ${variants[$name]}; do overlays+=(-c "$here/$overlay.yaml"); done
        lit-llm fit -c "$here/config.yaml" "${overlays[@]}" --data.source "$source_path" \
            --seed_everything "$seed" --trainer.logger.name "$run"
        touch "logs/$run/finished"
    done
done
