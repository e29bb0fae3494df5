#!/usr/bin/env bash
# Entry point of the container: the Ascend software's environment, then the command.
# The vendor's images differ in what they set by themselves; setting it again does no harm.

ascend=/usr/local/Ascend
export LD_LIBRARY_PATH=$ascend/driver/lib64:$ascend/driver/lib64/common:$ascend/driver/lib64/driver:$ascend/add-ons${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
for package in ascend-toolkit nnae tfplugin; do
  if [[ -f $ascend/$package/set_env.sh ]]; then
    source "$ascend/$package/set_env.sh"
  fi
done

exec "$@"
