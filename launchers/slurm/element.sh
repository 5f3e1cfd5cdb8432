#!/bin/bash
# One job of a workflow, as an element of an array: element.sh FOLDER BLOCK OFFSET ATTEMPT
# Its last deed is a file that says how it ended; a job that is killed leaves none.
folder=$1 block=$2 offset=$3 attempt=$4
restarts=${SLURM_RESTART_COUNT:-0}
export BPS_SLURM_ATTEMPT=$((attempt - 1 + restarts))

name=$(sed -n "$((offset + SLURM_ARRAY_TASK_ID + 1)){p;q}" "$folder/blocks/$block")
[ -n "$name" ] && [ -r "$folder/jobs/$name.sh" ] || exit 90
exec </dev/null >>"$folder/logs/$name.$attempt.log" 2>&1 || exit 91

bash "$folder/jobs/$name.sh"
code=$?

# The most memory that the control group had, which is what the limit is for.
peak=
while IFS=: read -r _ controllers path; do
  case $controllers in
    memory) [ -r "/sys/fs/cgroup/memory$path/memory.max_usage_in_bytes" ] && read -r peak <"/sys/fs/cgroup/memory$path/memory.max_usage_in_bytes" ;;
    "") [ -r "/sys/fs/cgroup$path/memory.peak" ] && read -r peak <"/sys/fs/cgroup$path/memory.peak" ;;
  esac
done </proc/self/cgroup

mark="$folder/ended/${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID.$restarts"
{
  echo "code $code"
  echo "node ${SLURMD_NODENAME:-}"
  echo "memory ${peak:-0}"
  tail -c 16384 "$folder/logs/$name.$attempt.log" | grep -oE 'Executed [0-9]+ quanta successfully, [0-9]+ failed' | tail -n 1
  times
} >"$mark.new" 2>/dev/null && mv "$mark.new" "$mark"
exit "$code"
