#!/bin/sh
# Without SLURM: the same line on each of NODES machines with DEVICES devices, HEAD being the name of one of them.
set -eu
exec torchrun --nnodes="${NODES:-2}" --nproc-per-node="${DEVICES:-8}" \
  --rdzv-backend=c10d --rdzv-endpoint="${HEAD:?names one of the machines}:${PORT:-29500}" \
  -m lit_llm fit "$@" --trainer.num_nodes="${NODES:-2}" --trainer.devices="${DEVICES:-8}"
