# sh shut.sh FOLDER COMMAND...: run a command for which all is for reading, but the folder.
#
# For a process that is root of its own table of mounts (see `walls` in genreplay_core/grading.py).
# `setpriv`, in the command, gives the rights away with which this could be undone. The kernel, when
# out of memory, takes these processes first.
echo 1000 > /proc/self/oom_score_adj
folder=$1
shift
mount --bind "$folder" "$folder" || exit 1
while read -r _ at _; do
    case "$at" in
        "$folder" | /proc) ;;
        *) mount -o remount,bind,ro "$at" 2> /dev/null ;;
    esac
done < /proc/self/mounts
[ -w "$folder" ] && [ ! -w / ] && mount -o remount,bind,ro /proc && exec "$@"
exit 1
