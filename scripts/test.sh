#!/usr/bin/env bash
# Evaluates every checkpoint that run_8p.sh left in this folder.
#   scripts/test.sh [--eval_dir CHECKPOINTS] [--data_dir DIR] [--flag value] ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

exec "$PYTHON" "$root/evaluate.py" \
  --rank_size 1 \
  --data_dir "$DATA_DIR" \
  --eval_dir ./model_8p \
  --log_dir ./model_evaluation \
  --log_name eval_densenet121.log \
  "$@"
