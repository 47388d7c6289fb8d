#!/bin/sh
# Prints how many CPUs this process may use, and how many jobs a build should have: one a CPU, but no more than memory
# allows, and 1 at least.
#
#     tools/machine.sh [ROOT]
#
# CPUs are those of the affinity mask and the container's quota, memory is what is free in the machine and in the
# control group. ROOT is the folder that has `proc` and `sys`. The largest unit of this project takes 1.1 GB.
root=${1:-}
megabytes_of_a_job=2048

cpus=$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)

# The folders of this process's control group and those above it, for a controller of version 1 ("" is version 2).
group_folders() {
    if [ -z "$1" ]; then
        group=$(sed -n 's/^[0-9]*:://p' "$root/proc/self/cgroup" 2>/dev/null)
        tops="$root/sys/fs/cgroup $root/sys/fs/cgroup/unified"
    else
        group=$(sed -n "s/^[0-9]*:\([^:]*,\)*$1\(,[^:]*\)*:\(.*\)/\3/p" "$root/proc/self/cgroup" 2>/dev/null)
        tops="$root/sys/fs/cgroup/$1 $root/sys/fs/cgroup/cpu,cpuacct"
    fi
    case $group in /..*) group= ;; esac
    for top in $tops; do
        below=$group
        while :; do
            echo "$top${below%/}"
            case $below in ?*/* | /?*) below=${below%/*} ;; *) break ;; esac
        done
    done
}

# The first number of a file; nothing if it has none, as in "max".
number_in() {
    sed -n '1s/^\([0-9][0-9]*\).*/\1/p' "$1" 2>/dev/null
}

# Makes the number of CPUs smaller if quota and period, in microseconds, grant less; rounded up.
limit_cpus() {
    [ "${1:-0}" -gt 0 ] && [ "${2:-0}" -gt 0 ] || return 0
    granted=$((($1 + $2 - 1) / $2))
    [ "$granted" -ge "$cpus" ] || cpus=$granted
}

# Makes the memory smaller if a limit of so many bytes, of which so many are used and so many of these are files that can
# be read again, leaves less.
limit_memory() {
    [ -n "$1" ] && [ ${#1} -lt 16 ] || return 0  # longer ones mean that there is no limit
    left=$((($1 - ${2:-0} + ${3:-0}) / 1048576))
    [ -n "$memory" ] && [ "$left" -ge "$memory" ] || memory=$left
}

memory=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' "$root/proc/meminfo" 2>/dev/null)
[ -z "$memory" ] || memory=$((memory / 1024))
while read -r folder; do
    limit_cpus "$(number_in "$folder/cpu.max")" "$(sed -n 's/^[0-9]* \([0-9]*\)$/\1/p' "$folder/cpu.max" 2>/dev/null)"
    limit_memory "$(number_in "$folder/memory.max")" "$(number_in "$folder/memory.current")" \
        "$(sed -n 's/^inactive_file //p' "$folder/memory.stat" 2>/dev/null)"
done <<END
$(group_folders "")
END
while read -r folder; do
    limit_cpus "$(number_in "$folder/cpu.cfs_quota_us")" "$(number_in "$folder/cpu.cfs_period_us")"
done <<END
$(group_folders cpu)
END
while read -r folder; do
    limit_memory "$(number_in "$folder/memory.limit_in_bytes")" "$(number_in "$folder/memory.usage_in_bytes")" \
        "$(sed -n 's/^total_inactive_file //p' "$folder/memory.stat" 2>/dev/null)"
done <<END
$(group_folders memory)
END

jobs=$cpus
if [ -n "$memory" ] && [ $((memory / megabytes_of_a_job)) -lt "$jobs" ]; then
    jobs=$((memory / megabytes_of_a_job))
fi
[ "$jobs" -gt 0 ] || jobs=1
echo "$cpus $jobs"
