#!/usr/bin/env bash
# Starts a container that has this server's NPUs, its driver and log folders, the data and a run folder.
#   scripts/docker_start.sh [--dry-run] [--devices 0,1,...] IMAGE DATA_DIR RUN_DIR [COMMAND ...]
# Without --devices: all that exist. Without COMMAND: a shell. --dry-run prints the docker command.
# DATA_DIR (read only) and RUN_DIR keep their paths inside; the container starts in RUN_DIR, runs as the
# user who calls this script, and leaves the Ascend logs in RUN_DIR/ascend/log.
# HOST_ROOT puts another folder before the host paths that are checked (for tests).
set -euo pipefail

usage() {
  echo "usage: $0 [--dry-run] [--devices 0,1,...] IMAGE DATA_DIR RUN_DIR [COMMAND ...]" >&2
  exit 2
}

refuse() {
  echo "$0: $*" >&2
  exit 2
}

dry_run=false
devices=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --dry-run) dry_run=true; shift ;;
    --devices) devices=${2:?--devices needs a list such as 0,1}; shift 2 ;;
    *) usage ;;
  esac
done
[[ $# -ge 3 ]] || usage
image=$1 data_dir=$2 run_dir=$3
shift 3

host=${HOST_ROOT:-}
if [[ -z $devices ]]; then
  for node in "$host"/dev/davinci[0-9]*; do
    [[ -e $node ]] && devices+=${devices:+,}${node##*/davinci}
  done
  [[ -n $devices ]] || refuse "no /dev/davinciN on this machine: it has no NPU, or the driver is not" \
    "loaded; see npu-smi info"
fi
[[ $devices =~ ^[0-9]+(,[0-9]+)*$ ]] || refuse "--devices $devices is no list of numbers such as 0,1"

arguments=(run --rm --ipc=host --network=host)
# Several servers' ranks find one another by the hosts' addresses, so the container uses those.
IFS=, read -r -a numbers <<<"$devices"
nodes=("${numbers[@]/#//dev/davinci}" /dev/davinci_manager /dev/devmm_svm /dev/hisi_hdc)
for node in "${nodes[@]}"; do
  [[ -e $host$node ]] || refuse "$node does not exist; ls /dev/davinci* shows the devices of this" \
    "machine, and the driver makes davinci_manager, devmm_svm and hisi_hdc"
  arguments+=("--device=$node")
done

driver=/usr/local/Ascend/driver
[[ -d $host$driver ]] || refuse "$driver does not exist; install the Ascend driver on the host"
for path in "$driver" /usr/local/Ascend/add-ons /usr/local/dcmi /usr/local/bin/npu-smi \
  /usr/local/sbin/npu-smi /etc/ascend_install.info /etc/hccn.conf; do
  # Which of these exist depends on the driver's release. The rank table is made from hccn.conf.
  [[ -e $host$path ]] && arguments+=(-v "$path:$path:ro")
done
[[ -d $host/var/log/npu ]] && arguments+=(-v /var/log/npu:/var/log/npu)

[[ -d $data_dir ]] || refuse "data folder $data_dir does not exist"
data_dir=$(cd "$data_dir" && pwd)
if [[ ! -d $run_dir ]]; then
  if $dry_run; then
    [[ $run_dir == /* ]] || run_dir=$PWD/$run_dir
  else
    mkdir -p "$run_dir"
  fi
fi
[[ -d $run_dir ]] && run_dir=$(cd "$run_dir" && pwd)
arguments+=(-v "$data_dir:$data_dir:ro" -v "$run_dir:$run_dir" -w "$run_dir" -e "HOME=$run_dir")

# Device nodes belong to a group (HwHiAiUser); a user of that group needs no root inside either.
arguments+=(--user "$(id -u):$(id -g)" --group-add "$(stat -c %g "$host/dev/davinci_manager")")
if [[ -t 0 && -t 1 ]]; then
  arguments+=(-it)
fi
arguments+=("$image" "${@:-/bin/bash}")

if $dry_run; then
  printf 'docker'
  printf ' %q' "${arguments[@]}"
  printf '\n'
  exit 0
fi
command -v docker >/dev/null || refuse "docker is not installed"
exec docker "${arguments[@]}"
