set -Eeuo pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
cd /var/tmp
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

# What must be as before when all VMs are gone.
world() {
    echo "links:"; ip -j link | jq -r '.[] | "\(.ifname) \(.master)"' | sort
    echo "rules:"; nft list ruleset | grep -v counter || true
    echo "loops:"; losetup -a
    echo "mapped:"; dmsetup ls
    echo "cgroups:"; find /sys/fs/cgroup -path '*banger-*' -type d
    echo "VMMs:"; vmms
    echo "files:"; find /run/banger /var/lib/banger/s -not -path '*/store/*' \
        -not -path '*/templates/*' -not -path '*/initrd*' | sort
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
