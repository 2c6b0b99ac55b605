set -Eeuo pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
trap '[ $? = 0 ] || tail -n 25 /var/lib/banger/s/vms/*/serial.log 2>/dev/null' EXIT
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
        -not -path '*/templates/*' -not -path '*/initrd*' -not -path '*/s/warm/*' | sort
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
