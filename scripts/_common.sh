# Sourced by the scripts beside it: where the project is, which Python runs it, where the data is.
# $PYTHON and $DATA_DIR may be set beforehand; a flag on the command line goes before $DATA_DIR.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DATA_DIR=${DATA_DIR:-/opt/npu/slimImagenet}
if [[ -z ${PYTHON:-} ]]; then
  if [[ -x $root/.venv/bin/python ]]; then
    PYTHON=$root/.venv/bin/python
  elif command -v python3.7 >/dev/null; then  # where Ascend's TensorFlow 1.15 images keep it
    PYTHON=python3.7
  else
    PYTHON=python3
  fi
fi
