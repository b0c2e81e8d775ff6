#!/bin/sh
# sh sweeps/pythia-paper.sh store=/data/pythia
#
# The seven steps of the paper's table 5 in the five smallest Pythia sizes. 35 checkpoints, ~11.1 GB to
# fetch, ~2.73 GB of disk at most, ~2.07 min, 0.0344 worker hours (`COMMAND=plan`, at 100 MB/s and an A100's
# speed as assumed in docs/guide/cluster.md).
exec tracker "${COMMAND:-sweep}" suite=pythia steps=paper 'suite.models=[14m,31m,70m,160m,410m]' \
    cache.max_gb=20 forecast.bandwidth=100 forecast.speed=1850 "$@"
