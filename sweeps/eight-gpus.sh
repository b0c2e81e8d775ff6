#!/bin/sh
# sh sweeps/eight-gpus.sh store=/data/pythia
#
# One machine with eight GPUs: a warm worker process on each, checkpoints fetched once for all of them. Log
# steps of every size. 200 checkpoints, ~998 GB to fetch, ~381 GB of disk at most, ~26.6 min, 3.54 worker
# hours (`COMMAND=plan`, at 1000 MB/s and an A100's speed as assumed in docs/guide/cluster.md).
exec tracker "${COMMAND:-sweep}" suite=pythia steps=log device=cuda engine.workers=8 engine.prefetch=8 \
    'suite.models=[14m,31m,70m,160m,410m,1b,1.4b,2.8b,6.9b,12b]' \
    cache.max_gb=500 forecast.bandwidth=1000 forecast.speed=1850 "$@"
