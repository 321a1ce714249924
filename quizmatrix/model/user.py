"""The guest user that a command runs as: --user USER[:GROUP], as names or numbers."""

from __future__ import annotations

import shlex

# An absolute path: busybox, which starts the command, would run its own sh for the name `sh`.
SHELL = "/bin/sh"
BUSYBOX = "/run/quizmatrix/busybox"

# (uid_t)-1 means "no change" and is no user.
_NUMBERS = (1 << 32) - 1


def is_user(text: str) -> bool:
    """Whether `text` is USER or USER:GROUP."""
    parts = text.split(":")
    whole = len(parts) <= 2 and all(parts) and "\n" not in text
    return whole and not any(_is_number(part) and int(part) >= _NUMBERS for part in parts)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def become(user: str) -> str:
    """Shell lines that change $@ so that it runs the same words as `user`: USER[:GROUP], names or numbers.

    su(1) sets HOME, USER and the user's groups, but needs a user in /etc/passwd. Its `--` keeps it from
    reading the options of the words. nsenter(1), without a namespace to enter, accepts any numbers and drops
    all other groups.
    """
    name, _, group = user.partition(":")
    own_uid = name if _is_number(name) else ""
    own_gid = group if _is_number(group) else "" if group else own_uid
    fail = "{ echo quizmatrix: the guest has no %s >&2; exit 125; }"
    lines = [
        f"user={shlex.quote(name)} group={shlex.quote(group)} name= home=/ uid={own_uid} gid={own_gid}",
        "while IFS=: read -r n _ u _ _ h _; do",
        '    [ "$n" = "$user" ] || [ "$u" = "$user" ] || continue',
        "    name=$n uid=$u home=$h; break",
        "done </etc/passwd",
        f'[ "$uid" ] || {fail % shlex.quote(f"user {name}")}',
    ]
    if group and not _is_number(group):
        lines += [
            'while IFS=: read -r n _ g _; do [ "$n" = "$group" ] && gid=$g; done </etc/group',
            f'[ "$gid" ] || {fail % shlex.quote(f"group {group}")}',
        ]
    lines += [
        'if [ "$name" ] && [ -z "$group" ]; then',
        f"""    set -- {BUSYBOX} su -s {SHELL} -c '"$@"' -- "$name" sh "$@\"""",
        "else",
        f'    set -- {BUSYBOX} nsenter -S "$uid" -G "$gid" -- {BUSYBOX} env \\',
        '        "HOME=$home" "USER=${name:-$uid}" "LOGNAME=${name:-$uid}" "$@"',
        "fi",
    ]
    return "\n".join(lines) + "\n"
