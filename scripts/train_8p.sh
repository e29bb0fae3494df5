#!/usr/bin/env bash
# The 8-rank ImageNet recipe: 150 epochs, global batch 256, lr 0.1, an evaluation every 5 epochs.
#   scripts/train_8p.sh [--data_dir DIR] [--flag value] ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

exec "$PYTHON" "$root/train_keras.py" \
  --rank_size 8 \
  --mode train_and_evaluate \
  --max_epochs 150 \
  --epochs_between_evals 5 \
  --lr 0.1 \
  --data_dir "$DATA_DIR" \
  --log_dir ./model_8p \
  --log_name densenet121_8p.log \
  "$@"
