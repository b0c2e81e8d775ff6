#!/bin/sh
# sh sweeps/pythia-full.sh store=/data/pythia cache.folder=/data/hub
#
# All 154 checkpoints of all ten sizes, in stages: the log steps of every size first, which show the phases
# after an eighth of the bytes, then all the others. What a stage has measured, later ones do not touch.
# First stage: 200 checkpoints, ~998 GB to fetch, ~238 GB of disk at most, ~2.77 h, 3.54 worker hours;
# second: 1540 checkpoints, ~7.68 TB to fetch, ~238 GB of disk at most, ~21.3 h, 27.3 worker hours
# (`COMMAND=plan`, at 100 MB/s and an A100's speed as assumed in docs/guide/cluster.md). Stops nowhere for a checkpoint that
# fails; ends with the worst stage's exit code.
sizes='[14m,31m,70m,160m,410m,1b,1.4b,2.8b,6.9b,12b]'
worst=0
for steps in log all; do
    tracker "${COMMAND:-sweep}" suite=pythia steps=$steps "suite.models=$sizes" engine.workers=8 \
        cache.max_gb=500 forecast.bandwidth=100 forecast.speed=1850 "$@"
    code=$?
    [ $code -le 1 ] || exit $code
    [ $code -le $worst ] || worst=$code
done
exit $worst
