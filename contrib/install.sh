#!/bin/sh
# Installs ironfs for all users: the programs, the mount helpers, completions, manual pages and systemd units.
# Usage: contrib/install.sh [--prefix DIR] [--destdir DIR]; build first with: cargo build --release
set -eu
prefix=/usr/local
destdir=
while [ $# -gt 0 ]; do
    case "$1" in
        --prefix) prefix=$2; shift 2 ;;
        --destdir) destdir=$2; shift 2 ;;
        *) echo "usage: $0 [--prefix DIR] [--destdir DIR]" >&2; exit 2 ;;
    esac
done
cd "$(dirname "$0")/.."
from=${CARGO_TARGET_DIR:-target}/release
[ -x "$from/ironfs" ] || { echo "$from/ironfs is not there: run cargo build --release first" >&2; exit 1; }
bin=$destdir$prefix/bin
install -d "$bin" "$destdir/sbin" "$destdir/etc/ironfs" "$destdir$prefix/share/man/man1" \
    "$destdir$prefix/share/bash-completion/completions" "$destdir$prefix/share/zsh/site-functions" \
    "$destdir/etc/systemd/system"
install -m 755 "$from/ironfs" "$from/ironfs-mountd" "$from/ironfs-shardd" "$bin/"
# mount(8) and umount(8) look for helpers in /sbin only; all names are the one program.
for name in mount.ironfs mount.fuse.ironfs umount.ironfs umount.fuse.ironfs; do ln -sf "$prefix/bin/ironfs" "$destdir/sbin/$name"; done
"$from/ironfs" completions bash > "$destdir$prefix/share/bash-completion/completions/ironfs"
"$from/ironfs" completions zsh > "$destdir$prefix/share/zsh/site-functions/_ironfs"
"$from/ironfs" man "$destdir$prefix/share/man/man1"
for unit in ironfs@.service ironfs-shardd.service; do
    sed "s|/usr/local/bin|$prefix/bin|" "contrib/systemd/$unit" > "$destdir/etc/systemd/system/$unit"
done
echo "installed below $destdir$prefix; try: ironfs up /mnt/iron"
