#!/bin/sh
# sh sweeps/studies/scale.sh store=scale
#
# Does a metric step at some model size, and do larger models turn earlier? Ten shapes of eight sizes from 10
# thousand to 3 million non-embedding parameters, 3 seeds each, trained here and measured at 15 steps: 450
# checkpoints, nothing to fetch. It took 16 minutes of processor time, and 35 minutes on two cores of a shared
# machine at lowest priority. What came out: docs/findings/scale.md.
exec tracker "${COMMAND:-sweep}" \
    'suite.models=[0.01m,0.025m,0.05m,0.05m_6h,0.1m,0.2m,0.2m_2h,0.4m,0.8m,3m]' suite.seeds=3 \
    suite.batch=6 suite.train_steps=512 'suite.dense_steps=[24,96,24]' "$@"
