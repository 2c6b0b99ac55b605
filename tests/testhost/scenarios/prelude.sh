set -Eeuo pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
trap '[[ $? = 0 || $? = 100 || $? = 101 ]] || tail -n 25 /var/lib/banger/s/vms/*/serial.log 2>/dev/null' EXIT
cd /var/tmp
# An emulated processor translates code anew at each address: processes start four times as fast.
echo 0 > /proc/sys/kernel/randomize_va_space
# Which one a scenario that runs with any of them is to use.
vmm=${vmm:-auto}

# banger as the user who owns the VMs.
banger() {
    setpriv --reuid banger --regid banger --init-groups env HOME=/var/lib/banger \
        BANGER_SOCKET=/run/banger/bangerd.sock /usr/local/bin/banger "$@"
}

say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }
die() { echo "failed: $*"; exit 1; }

# equal WHAT EXPECTED FOUND
equal() {
    [ "$2" = "$3" ] || die "$1: expected
$2
but found
$3"
}

# until_true SECONDS COMMAND...: waits for a condition, not for a time.
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "not in time: $*"
        sleep 0.1
    done
}

# As Docker keeps images and containers, in the VM web: layers on its root, a whiteout and a rename among
# them, and a group of its own with limits.
carries_containers() {
    banger vm exec web -- sh -ec '
        mkdir -p /o/l/dir /o/u /o/w /o/m; echo low > /o/l/f; echo old > /o/l/g; echo in > /o/l/dir/h
        mount -t overlay overlay -o lowerdir=/o/l,upperdir=/o/u,workdir=/o/w /o/m
        echo up > /o/m/new; rm /o/m/f; mv /o/m/g /o/m/moved; rm -r /o/m/dir; mkdir /o/m/dir
        [ -c /o/u/f ]; [ "$(cat /o/u/moved)" = old ]; [ -z "$(ls /o/m/dir)" ]; [ -e /o/l/dir/h ]
        umount /o/m; mknod /o/u/white c 0 0; [ -c /o/u/white ]
        grep -q " /sys/fs/cgroup cgroup2 " /proc/mounts
        cd /sys/fs/cgroup
        for one in cpu memory pids; do grep -qw $one cgroup.controllers; echo +$one > cgroup.subtree_control; done
        mkdir -p box; echo 64 > box/pids.max; echo 67108864 > box/memory.max; echo "50000 100000" > box/cpu.max
        sh -c "echo 0 > box/cgroup.procs; grep -q box /proc/self/cgroup"; rmdir box
        echo carries'
}

# How often disks were checked; the line comes after the answer.
checks() { grep -c '"request":"check-disk"' /var/log/banger/helper.jsonl || true; }

vmms() { pgrep -f '^([^ ]*/)?(qemu-system-[^ /]*|firecracker|jailer)( |$)' || true; }

# Moves banger's state to XFS, where files are copied by reference; it was on ext4, where they are not.
state_on_xfs() {
    systemctl stop bangerd banger-helper
    cp -a /var/lib/banger/s /srv/xfs/s
    mount --bind /srv/xfs/s /var/lib/banger/s
    systemctl start banger-helper bangerd
    until_true 60 banger daemon status
}

# What must be as before when all VMs are gone.
world() {
    echo "links:"; ip -j link | jq -r '.[] | "\(.ifname) \(.master)"' \
        | sed 's/^bgtap[0-9]*/bgtap/' | sort # how many taps the pool keeps, not which
    echo "rules:"; nft list ruleset | grep -v counter || true
    echo "loops:"; losetup -a
    echo "mapped:"; dmsetup ls
    echo "cgroups:"; find /sys/fs/cgroup -path '*banger-*' -type d
    echo "VMMs:"; vmms
    echo "files:"; find /run/banger /var/lib/banger/s -not -path '*/store/*' \
        -not -path '*/templates/*' -not -path '*/initrd*' -not -path '*/s/warm/*' \
        -not -path '*/s/.local*' | sort # the log of what the owner's own commands did
}
is_world() { [ "$(world)" = "$1" ]; }

# nothing_left BEFORE
nothing_left() {
    local end=$((SECONDS + 60))
    until is_world "$1"; do
        [ $SECONDS -lt $end ] || { diff <(echo "$1") <(world) || die "something is left"; }
        sleep 0.1
    done
}

# After a purge there is nothing of banger's on the host.
purged() {
    equal "VMMs" "" "$(vmms)"
    equal "files" "" "$(find / -xdev \( -path /proc -o -path /sys -o -path /opt/files \) -prune -o -iname '*banger*' -print -o -name 'bgtap*' -print; ls -d /run/banger* /dev/banger 2>/dev/null || true)"
    equal "account" "" "$(grep banger /etc/passwd /etc/group /etc/subuid /etc/subgid || true)"
    equal "links" "" "$(ip -o link | grep -E 'bgtap|br-fc' || true)"
    equal "rules" "" "$(nft list ruleset)"
    equal "loops" "" "$(losetup -a | grep -v /var/lib/xfs.img || true)"
    equal "mapped" "No devices found" "$(dmsetup ls)"
    equal "units" "" "$(systemctl list-unit-files 'banger*' --no-legend || true; systemctl list-units 'banger*' --all --no-legend || true)"
    equal "cgroups" "" "$(find /sys/fs/cgroup -name '*banger*')"
}

# Another process than before, which systemd knows to be ready: both_anew, after both noted who they were.
unit() { systemctl show -P "$2" "$1"; }
anew() { [ "$(unit "$1" MainPID)" -gt 0 ] && [ "$(unit "$1" MainPID)" != "$2" ] && [ "$(unit "$1" ActiveState)" = active ]; }
both() { daemon=$(unit bangerd MainPID) helper=$(unit banger-helper MainPID); }
both_anew() { until_true 60 anew bangerd "$daemon"; until_true 60 anew banger-helper "$helper"; }
