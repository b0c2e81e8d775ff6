#!/bin/sh
# sh sweeps/paper-tables.sh store=/data/paper
#
# Tables 5 and 6 of the paper: the 6.9b model over training, and eight sizes at their last step; then both
# beside what the paper prints. Table 5: 7 checkpoints, ~96.6 GB to fetch, ~41.4 GB of disk at most, ~20.8
# min, 0.346 worker hours; table 6: 8 checkpoints, ~47.7 GB to fetch, ~47.7 GB of disk at most, ~10.2 min,
# 0.17 worker hours (`COMMAND=plan`, at 100 MB/s and an A100's speed as assumed in docs/guide/cluster.md).
tracker "${COMMAND:-sweep}" suite=pythia steps=paper 'suite.models=[6.9b]' \
    cache.max_gb=50 forecast.bandwidth=100 forecast.speed=1850 "$@" || [ $? -eq 1 ] || exit 2
tracker "${COMMAND:-sweep}" suite=pythia 'steps.list=[143000]' \
    'suite.models=[14m,70m,160m,410m,1.4b,2.8b,6.9b,12b]' \
    cache.max_gb=50 forecast.bandwidth=100 forecast.speed=1850 "$@" || [ $? -eq 1 ] || exit 2
[ "${COMMAND:-sweep}" != sweep ] || exec tracker compare "$@"
