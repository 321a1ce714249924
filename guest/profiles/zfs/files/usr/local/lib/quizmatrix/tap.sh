# shellcheck shell=sh
# shellcheck disable=SC2154 # who sources it sets what it reads
# TAP (testanything.org) for scripts of steps; sourced. tap_work has to be a folder for the log of a step.
#
# A step is a function that is run in a shell of its own under `set -e`. What it prints comes out only
# where it fails, with the commands it ran.

tap_number=0
tap_failed=0
# Why a step is known to fail, where it is.
tap_todo=

# tap_begin COUNT: how many steps there will be.
tap_begin() {
    echo "TAP version 13"
    echo "1..$1"
}

# tap_bail WHY: nothing can go on.
tap_bail() {
    echo "Bail out! $1"
    exit 99
}

# tap_note: what is read becomes diagnostics.
tap_note() { sed 's/^/# /'; }

# tap_clock: sets `clock` to hundredths of a second since some moment.
tap_clock() {
    read -r clock _ </proc/uptime
    clock=${clock%.*}${clock#*.}
    clock=${clock#0}
}

# tap_step NAME FUNCTION ARGUMENT...: not to be called in a condition, in which the shell ignores `set -e`
# in all that is called.
tap_step() {
    tap_name=$1
    shift
    tap_number=$((tap_number + 1))
    rm -f "$tap_work/skipped"
    tap_clock
    tap_start=$clock
    (
        PS4='+ '
        set -ex
        "$@"
    ) >"$tap_work/log" 2>&1 </dev/null
    tap_status=$?
    tap_clock
    tap_took=$((clock - tap_start))
    tap_took=$((tap_took / 100)).$((tap_took / 10 % 10))
    if [ $tap_status = 0 ]; then
        echo "ok $tap_number - $tap_name"
    elif [ -e "$tap_work/skipped" ]; then
        echo "ok $tap_number - $tap_name # SKIP $(cat "$tap_work/skipped")"
    else
        if [ "$tap_todo" ]; then
            echo "not ok $tap_number - $tap_name # TODO $tap_todo"
        else
            tap_failed=$((tap_failed + 1))
            echo "not ok $tap_number - $tap_name"
        fi
        echo "# it ended with $tap_status; its last words:"
        tail -n 30 "$tap_work/log" | tap_note
    fi
    echo "# $tap_took s"
}

# Of a step -----------------------------------------------------------------------------------------

# skip WHY: the step cannot be taken here, and that is no failure.
skip() {
    echo "$1" >"$tap_work/skipped"
    exit 77
}

# refuses COMMAND...: succeeds where it fails.
refuses() {
    if "$@"; then
        echo "this should have been refused: $*"
        return 1
    fi
}
