#!/usr/bin/env bash
# The whole path on a laptop: digits as TFRecords, DenseNet-121 trained and evaluated on them.
# Called by `make demo`; PYTHON names the interpreter of the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data=demo_data
run=demo_run

rm -rf "$data" "$run"
"$python" examples/digits.py "$data"
"$python" train_keras.py --mode train_and_evaluate --model densenet121 --data_dir "$data" --log_dir "$run" \
  --num_classes 10 --image_size 32 --batch_size 32 --lr 0.1 --T_max 16 --max_epochs 16 --lr_update step \
  --warmup_epochs 1 --epochs_between_evals 4 --min_crop_area 0.6 --horizontal_flip false \
  --save_checkpoints_steps 176
echo
echo "Evaluating every checkpoint of $run with evaluate.py:"
"$python" evaluate.py --eval_dir "$run" --data_dir "$data" --log_dir "$run/evaluation" --json "$run/evaluation.json"
