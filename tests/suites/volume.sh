# For suites: a fresh 4+2 volume of six directories, mounted at $mnt, with all below $work. Sourced, after `cd` to the
# repository. IRONFS names the program, else it is built. IRONFS_LOSE takes disks away once it is mounted:
#   1 or 2     so many disks, for as long as the suite runs
#   flap       one disk after the other for a few seconds, the next when all is whole again
# `finish` brings them back, waits until all is whole, unmounts and checks every byte.

if [ -z "${IRONFS:-}" ]; then
    cargo build --locked --quiet --bins
    IRONFS="$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/debug/ironfs"
fi
work=$(mktemp -d)
mnt="$work/mnt"
flapper=
chmod 755 "$work"
mkdir "$mnt"
disks=()
for i in 0 1 2 3 4 5; do mkdir "$work/d$i"; disks+=("$work/d$i"); done

tidy_up() {
    stop_flapping
    "$IRONFS" umount "$mnt" 2>/dev/null || umount -l "$mnt" 2>/dev/null || true
    rm -rf "$work"
}

whole() {
    "$IRONFS" status --json "$mnt" | tr -d ' \n' | grep -q '"state":"healthy".*"stripes_by_margin":{\("2":[0-9]*\)\?}'
}

wait_whole() {
    for _ in $(seq 600); do
        if whole; then return 0; fi
        sleep 0.2
    done
    echo "the volume does not become whole:"
    "$IRONFS" status "$mnt"
    return 1
}

flap() {
    local next=0
    while [ -e "$work/flapping" ]; do
        mv "$work/d$next" "$work/away$next"
        sleep 3
        mv "$work/away$next" "$work/d$next"
        wait_whole || return 1
        next=$(((next + 1) % 6))
    done
}

stop_flapping() {
    [ -n "$flapper" ] || return 0
    rm -f "$work/flapping"
    wait "$flapper" || { flapper=; return 1; }
    flapper=
}

# mount_volume NAME OPTIONS
mount_volume() {
    "$IRONFS" format "$1-$$" --class 4+2 --disk "${disks[@]}" --allow-same-device --config "$work/v.toml" >/dev/null
    "$IRONFS" mount "$work/v.toml" "$mnt" -o "${2:-rw}"
    case "${IRONFS_LOSE:-0}" in
        0) ;;
        1 | 2) for i in $(seq "$IRONFS_LOSE"); do mv "$work/d$i" "$work/away$i"; done ;;
        flap)
            touch "$work/flapping"
            flap &
            flapper=$!
            ;;
        *)
            echo "IRONFS_LOSE is 1, 2 or flap, not $IRONFS_LOSE"
            exit 2
            ;;
    esac
}

finish() {
    stop_flapping
    for i in 0 1 2 3 4 5; do
        if [ -d "$work/away$i" ]; then mv "$work/away$i" "$work/d$i"; fi
    done
    wait_whole
    "$IRONFS" umount "$mnt"
    "$IRONFS" fsck --read-data "$work/v.toml" >/dev/null
}
