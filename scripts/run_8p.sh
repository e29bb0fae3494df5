#!/usr/bin/env bash
# ImageNet on the 8 devices of one server, or of N servers with the same command on each of them and
#   scripts/run_8p.sh --rank_size N*8 --rank_table TABLE
# The rank table of one server is written from /etc/hccn.conf; 8p.json is only an example of the form.
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/train_8p.sh" "$@"
