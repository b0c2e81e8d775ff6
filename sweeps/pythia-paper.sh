#!/bin/sh
# sh sweeps/pythia-paper.sh
#
# The seven steps of the paper's table 5 in the five smallest Pythia sizes, 14m to 410m: 35 checkpoints,
# to fetch: ~11.1 GB (float16, as published). Add overrides behind it, for example store=/data/pythia
# or dtype=bfloat16; stop it at any time, the same command goes on. `tracker plan` with the same
# arguments says what is left.
exec tracker "${VERB:-sweep}" suite=pythia steps=paper 'suite.models=[14m,31m,70m,160m,410m]' "$@"
