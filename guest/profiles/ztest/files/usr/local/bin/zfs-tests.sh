#!/bin/sh
# Calls OpenZFS's own zfs-tests.sh, with the same arguments. Its logs are in /shared from the start, so
# that a guest which dies leaves them, and with QUIZMATRIX_SHARD=2 and QUIZMATRIX_SHARDS=5 only the
# second fifth of the tests is run. Which tests quizmatrix wants besides: docs/results.md. Time limits are
# multiplied by QUIZMATRIX_TIMEOUT_FACTOR.

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

# See zfs_test_runner.py. -K tells the kernel's log which test begins.
if [ -z "${TEST_RUNNER-}" ] && [ -f "$tests/test-runner/bin/test-runner.py" ]; then
    QUIZMATRIX_TEST_RUNNER=$tests/test-runner/bin/test-runner.py
    TEST_RUNNER="$(command -v python3) /usr/local/lib/quizmatrix/zfs_test_runner.py"
    [ ! -d /shared/test_results ] || export QUIZMATRIX_RUNNING=/shared/test_results/running.log
    export QUIZMATRIX_TEST_RUNNER TEST_RUNNER
fi
if grep -q "getopts '[^']*K" "$tests/zfs-tests.sh"; then
    set -- -K "$@"
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

before=$(ls $logs 2>/dev/null)
echo "# quizmatrix: selects tests"
if [ "${QUIZMATRIX_SHARDS:-1}" -gt 1 ] || [ -n "${QUIZMATRIX_TESTS_FILE-}${QUIZMATRIX_SKIP_FILE-}" ]; then
    python3 /usr/local/lib/quizmatrix/zfs_tests_shard.py "$tests/zfs-tests.sh" "$@"
else
    "$tests/zfs-tests.sh" "$@"
fi
status=$?
# The test runner makes a folder as it begins. Where there is none, and that was an error, no test ran.
if [ $status != 0 ] && [ "$(ls $logs 2>/dev/null)" = "$before" ]; then
    echo 1..0
fi
# Its link leads out of /shared, where nobody follows it. It stays its maker's, who replaces it the next time.
if [ -L $logs/current ]; then
    ln -sfn "$(basename "$(readlink $logs/current)")" $logs/current
fi
exit $status
