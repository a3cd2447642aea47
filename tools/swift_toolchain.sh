#!/bin/sh
# A Swift 6.0 toolchain for machines that have none: Debian trixie's swiftlang, in a folder of its own.
#
#   tools/swift_toolchain.sh                 sets it up where that has not been done, which takes some minutes
#   tools/swift_toolchain.sh run COMMAND..   runs a command inside, in the folder where this was called
#
# SATCHEL_SWIFT_ROOT   where it lies; default ~/.cache/satchel/swift
# SATCHEL_SWIFT_SHARE  further folders that commands see, with spaces between; they see this checkout and /tmp anyway
# SATCHEL_DEBIAN       the Debian archive; default http://deb.debian.org/debian
#
# Needs Linux, debootstrap and root (to change roots and to mount). Mounts are private to a run: none stays behind.
# apt checks the packages against Debian's keys.
set -eu
root=${SATCHEL_SWIFT_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/satchel/swift}
archive=${SATCHEL_DEBIAN:-http://deb.debian.org/debian}
checkout=$(cd "$(dirname "$0")/.." && pwd)
ready=$root/.satchel-ready-1

fail() { # $1: why; $2: 3 where this machine cannot, 4 where it did not work out
    echo "swift_toolchain.sh: $1" >&2
    exit "${2:-3}"
}

# Runs a command inside; the first argument is the folder to be in. The environment goes along.
inside() {
    shared="/tmp $checkout ${SATCHEL_SWIFT_SHARE:-}" unshare --mount sh -eu -c '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        for folder in $shared; do
            mkdir -p "$root$folder"
            mount --bind "$folder" "$root$folder"
        done
        export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
        exec chroot "$root" sh -c '\''cd "$1" && shift && exec "$@"'\'' sh "$@"
    ' sh "$root" "$@"
}

install() {
    [ "$(uname -s)" = Linux ] || fail "this is for Linux; on a Mac take Xcode's Swift"
    [ "$(id -u)" = 0 ] || fail "run it as root: it changes roots and mounts"
    command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
    unshare --mount true 2>/dev/null || fail "this system does not allow mounts of one's own (in a container: --privileged)"
    if ! [ -e "$root/.satchel-base" ]; then
        # Only what an interrupted run of this script left is removed.
        [ -e "$root/.satchel-begun" ] || [ -z "$(ls -A "$root" 2>/dev/null)" ] || fail "$root holds something else"
        rm -rf "$root"
        mkdir -p "$root"
        touch "$root/.satchel-begun"
        debootstrap --variant=minbase trixie "$root" "$archive" >"$root.log" 2>&1 || fail "debootstrap failed: see $root.log" 4
        rm "$root.log"
        touch "$root/.satchel-base"
    fi
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    # Of ONNX Runtime only the C header is taken: the library is too old for our operators, and comes from a wheel.
    inside / sh -eu -c '
        apt-get -qq update
        apt-get -qq install --no-install-recommends swiftlang g++ libcurl4t64 >/var/log/satchel-install.log 2>&1
        cd /tmp && mkdir -p satchel-header && cd satchel-header
        apt-get -qq download libonnxruntime-dev
        dpkg-deb -x libonnxruntime-dev_*.deb /opt/onnxruntime
        cd / && rm -r /tmp/satchel-header
        apt-get clean
    ' || fail "installing swiftlang failed: see $root/var/log/satchel-install.log" 4
    touch "$ready"
}

[ -e "$ready" ] || install
if [ "${1:-}" = run ]; then
    shift
    inside "$PWD" "$@"
fi
