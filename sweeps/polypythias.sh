#!/bin/sh
# sh sweeps/polypythias.sh store=/data/polypythias
#
# Ten seeds of the five smallest sizes at log steps: do phases begin at the same step in every seed? 1000
# checkpoints, ~318 GB to fetch, ~3.64 GB of disk at most, ~53 min, 0.984 worker hours (`COMMAND=plan`, at
# 100 MB/s and an A100's speed as assumed in docs/guide/cluster.md).
exec tracker "${COMMAND:-sweep}" suite=polypythias steps=log engine.workers=2 \
    cache.max_gb=20 forecast.bandwidth=100 forecast.speed=1850 "$@"
