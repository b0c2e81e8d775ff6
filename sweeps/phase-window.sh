#!/bin/sh
# sh sweeps/phase-window.sh store=/data/pythia
#
# A close-up of the exploratory phase: every checkpoint from step 256 to 10000 in four sizes. 48
# checkpoints, ~42.5 GB to fetch, ~6.27 GB of disk at most, ~8.56 min, 0.143 worker hours (`COMMAND=plan`, at
# 100 MB/s and an A100's speed as assumed in docs/guide/cluster.md). `tracker sweep suite=pythia steps=refine
# steps.budget=8 store=...` then narrows the changes found.
exec tracker "${COMMAND:-sweep}" suite=pythia steps=window steps.low=256 steps.high=10000 \
    'suite.models=[70m,160m,410m,1b]' cache.max_gb=20 forecast.bandwidth=100 forecast.speed=1850 "$@"
