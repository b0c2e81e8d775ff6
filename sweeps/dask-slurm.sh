#!/bin/sh
# sh sweeps/dask-slurm.sh store=/shared/pythia cache.folder=/shared/hub engine.job.interface=ib0
#
# dask on Slurm: this process plans and reports, each worker is a job that is submitted when there is work and
# ends when there is none; a job that is cancelled or dies is replaced, its unit measured by another. Run it
# where jobs can be submitted. 160 checkpoints, ~246 GB to fetch, ~246 GB of disk at most, ~41 min, 0.848
# worker hours (`COMMAND=plan`, at 100 MB/s and an A100's speed as assumed in docs/guide/cluster.md).
exec tracker "${COMMAND:-sweep}" engine=slurm engine.workers=16 engine.threads=4 engine.job.job_cpu=4 \
    engine.job.memory=32GB 'engine.job.job_extra_directives=["--gres=gpu:1"]' 'engine.resources={GPU: 1}' \
    suite=pythia steps=log 'suite.models=[14m,31m,70m,160m,410m,1b,1.4b,2.8b]' \
    cache.max_gb=500 forecast.bandwidth=100 forecast.speed=1850 "$@"
