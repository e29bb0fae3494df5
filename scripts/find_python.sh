#!/usr/bin/env bash
# Prints the path of a Python interpreter of the wanted version, or says how to get one.
#   scripts/find_python.sh 3.7         exactly 3.7, which TensorFlow 1.15.0 needs
#   scripts/find_python.sh 3.9+        3.9 or newer, for ruff and mypy
# $PYTHON is tried first for 3.7, then python3.7 on PATH, pyenv, uv and conda.
set -u

wanted=${1:?usage: find_python.sh VERSION[+]}

fits() {  # fits INTERPRETER: it runs, has the wanted version and can make virtual environments
  "$1" - "$wanted" >/dev/null 2>&1 <<'PY'
import sys
wanted = sys.argv[1]
version = tuple(int(part) for part in wanted.rstrip("+").split("."))
import ensurepip, venv
ok = sys.version_info[:2] >= version if wanted.endswith("+") else sys.version_info[:2] == version
sys.exit(0 if ok else 1)
PY
}

candidates() {
  if [ "$wanted" = 3.7 ]; then
    [ -n "${PYTHON:-}" ] && echo "$PYTHON"
    echo python3.7
  else
    echo python3
    for minor in 13 12 11 10 9; do echo "python3.$minor"; done
  fi
  for root in "${PYENV_ROOT:-}" "$HOME/.pyenv" /opt/pyenv /usr/local/pyenv; do
    [ -n "$root" ] && ls -d "$root"/versions/3*/bin/python 2>/dev/null
  done
  command -v uv >/dev/null 2>&1 && uv python find "${wanted/+/}" 2>/dev/null
  for root in "${CONDA_PREFIX:-}" "$HOME/miniconda3" "$HOME/anaconda3" "$HOME/miniforge3" /opt/conda; do
    [ -n "$root" ] && ls -d "$root"/bin/python "$root"/envs/*/bin/python 2>/dev/null
  done
}

while IFS= read -r candidate; do
  if fits "$candidate"; then
    "$candidate" -c 'import sys; print(sys.executable)'
    exit 0
  fi
done < <(candidates)

{
  echo "error: no Python $wanted with venv and ensurepip was found; looked at \$PYTHON, PATH, pyenv, uv and conda."
  if [ "$wanted" = 3.7 ]; then
    echo "TensorFlow 1.15.0 exists for Python 3.7 and older only. Any one of these provides it:"
    echo "  pyenv install 3.7.17"
    echo "  uv python install 3.7"
    echo "  conda create -n py37 python=3.7"
    echo "or name one: PYTHON=/path/to/python3.7 make setup"
  else
    echo "ruff and mypy need it; on Debian: apt-get install python3 python3-venv"
  fi
} >&2
exit 1
