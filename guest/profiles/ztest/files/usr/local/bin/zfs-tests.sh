#!/bin/sh
# Calls OpenZFS's own zfs-tests.sh, with the same arguments. Its logs are in /shared from the start, so
# that a guest which dies leaves them, and with QUIZMATRIX_SHARD=2 and QUIZMATRIX_SHARDS=5 only the
# second fifth of the tests is run.

# Where OpenZFS's own installation has it, and Debian's.
for tests in /usr/local/share/zfs /usr/share/zfs; do
    [ -x "$tests/zfs-tests.sh" ] && break
done
if ! [ -x "$tests/zfs-tests.sh" ]; then
    echo "zfs-tests.sh: OpenZFS's tests are not installed" >&2
    exit 127
fi

logs=/var/tmp/test_results
if [ -d /shared ] && ! [ -e $logs ]; then
    sudo mkdir -p /shared/test_results
    sudo chmod 1777 /shared/test_results
    ln -s /shared/test_results $logs
fi

# It makes the files for its disks itself, and refuses where they are there. Of the size that these have.
if [ -z "${DISKS-}" ]; then
    for file in ${FILES-}; do
        if [ -f "$file" ] && [ "$(stat -c %b "$file")" = 0 ]; then
            size=$(stat -c %s "$file")
            rm -f "$file"
        fi
    done
    [ -z "${size-}" ] || set -- -s "$size" "$@"
fi

if [ "${QUIZMATRIX_SHARDS:-1}" -gt 1 ]; then
    python3 /usr/local/lib/quizmatrix/zfs_tests_shard.py "$tests/zfs-tests.sh" "$@"
else
    "$tests/zfs-tests.sh" "$@"
fi
status=$?
# Its link leads out of /shared, where nobody follows it.
if [ -L $logs/current ]; then
    sudo ln -sfn "$(basename "$(readlink $logs/current)")" $logs/current
fi
exit $status
