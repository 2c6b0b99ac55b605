#!/bin/sh
# mmdebstrap's customize hook: runs once over the unpacked system, whose root is $1.
set -eu
root=$1
echo testhost > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 testhost\n' > "$root/etc/hosts"
# Beside ext4 a file system that copies by reference.
truncate -s 8G "$root/var/lib/xfs.img"
chroot "$root" mkfs.xfs -q -m reflink=1 /var/lib/xfs.img
mkdir "$root/srv/xfs"
printf '/dev/vda / ext4 rw,noatime 0 1\n/var/lib/xfs.img /srv/xfs xfs loop,noatime 0 0\n' > "$root/etc/fstab"
rm -f "$root/etc/resolv.conf"
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' > "$root/etc/systemd/network/20-wired.network"
printf 'kvm_amd\nloop\ndm_snapshot\ntun\n' > "$root/etc/modules-load.d/testhost.conf"
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\nRateLimitIntervalSec=0\n' \
    > "$root/etc/systemd/journald.conf.d/testhost.conf"
for unit in systemd-networkd systemd-resolved qemu-guest-agent; do
    chroot "$root" systemctl enable --quiet "$unit"
done
# What wakes up by itself disturbs a measurement; what sets itself up costs seconds when emulated
# (binfmt alone five); a getty hangs up the serial line that the kernel's messages come by.
for unit in e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer fstrim.timer systemd-tmpfiles-clean.timer getty@tty1.service \
    serial-getty@ttyS0.service systemd-timesyncd.service systemd-pstore.service \
    systemd-binfmt.service proc-sys-fs-binfmt_misc.automount; do
    chroot "$root" systemctl mask --quiet "$unit"
done
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* \
    "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
