#!/bin/sh
# sh sweeps/multirun.sh store=/data/multirun
#
# Hydra multirun: one job after the other for each size and group of seeds, all into one store, where the
# analysis sees them together. 60 checkpoints, ~22.5 GB to fetch, ~1.12 GB of disk at most, ~4.21 min,
# 0.0702 worker hours (`COMMAND=plan`, at 100 MB/s and an A100's speed as assumed in docs/guide/cluster.md), for each of the
# last two of the four jobs.
exec tracker "${COMMAND:-sweep}" --multirun suite=polypythias steps=log 'suite.models=[70m],[160m]' \
    'suite.seeds=[0,1,2],[3,4,5]' cache.max_gb=20 forecast.bandwidth=100 forecast.speed=1850 "$@"
