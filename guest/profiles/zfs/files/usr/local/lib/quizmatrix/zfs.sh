# shellcheck shell=sh
# shellcheck disable=SC2154 # who sources it sets what it reads
# What the scripts about OpenZFS share; sourced.

# A file's time is the same text in every guest.
export TZ=UTC0 LC_ALL=C

# vdev_of DISK: what is the pool's of a disk that zpool has labelled, or the disk or file itself.
vdev_of() {
    for vdev in "${1}1" "${1}p1" "$1"; do
        [ -e "$vdev" ] && break
    done
    echo "$vdev"
}

# real DISK...: zpool labels a whole disk and then waits 30 seconds for a partition beside the name it
# was given, which does not come where that is a link that no udevd made.
real() {
    for link; do
        readlink -f "$link"
    done
}

# has FEATURE: whether this OpenZFS and the pool $pool know it.
# zpool get of a feature that it does not know prints nothing, and ends with 0.
has() { case $(zpool get -H -o value "feature@$1" "$pool" 2>/dev/null) in "" | -) false ;; esac }

# make_data FILE: about a megabyte, some of which can be compressed, the same each time.
make_data() {
    seq 1 120000 >"$1.text"
    {
        head -c 300000 "$1.text"
        gzip -c "$1.text"
        head -c 150000 /dev/zero
        tail -c 250000 "$1.text"
    } >"$1"
    rm "$1.text"
}

# zvol_node NAME: the device of a zvol, which comes a moment later. Without udevd it has no name, and is
# told by its size.
zvol_node() {
    bytes=$(zfs get -Hp -o value volsize "$1")
    tries=0
    while [ $tries -lt 100 ]; do
        for node in "/dev/zvol/$1" /dev/zd*[0-9]; do
            case $node in /dev/zd*p[0-9]*) continue ;; esac
            if [ -b "$node" ] && [ "$(blockdev --getsize64 "$node")" = "$bytes" ]; then
                readlink -f "$node"
                return
            fi
        done
        tries=$((tries + 1))
        sleep 0.1
    done
    echo "there is no device of $1" >&2
    return 1
}
