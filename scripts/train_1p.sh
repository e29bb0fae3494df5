#!/usr/bin/env bash
# One rank, 100 steps, on the device that is the first argument, if that is a number.
#   scripts/train_1p.sh [DEVICE] [--data_dir DIR] [--flag value] ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  export DEVICE_ID=$1
  shift
fi

exec "$PYTHON" "$root/train_keras.py" \
  --rank_size 1 \
  --mode train \
  --max_train_steps 100 \
  --iterations_per_loop 10 \
  --display_every 10 \
  --data_dir "$DATA_DIR" \
  --log_dir ./model_1p \
  --log_name densenet121_1p.log \
  "$@"
