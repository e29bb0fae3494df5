#!/usr/bin/env bash
# A short run on one device: 100 steps. Further flags are passed on.
#   scripts/run_1p.sh [--data_dir DIR] [--flag value] ...
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/train_1p.sh" "$@"
