#!/usr/bin/env bash
# From a fresh Debian 12 machine to a command that ran in a virtual machine of its own.
#
# Installs what is missing, builds, starts the root helper and the daemon on a private state
# directory, makes a kernel and an image, runs a command in a guest. A second call reuses all of it.
#
#   BANGER_HOME    where everything is kept       (default /var/lib/banger-quickstart)
#   BANGER_OWNER   the user who owns the VMs      (default: who called sudo, else "banger", made if absent)
#   BANGER_SUBNET  the guests' network            (default 172.30.99.0/24)
#
#   ./scripts/quickstart.sh --stop    ends the VMs, the daemon and the helper, removes bridge and rules
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

[ "$(id -u)" = 0 ] || die "run this as root: it installs packages and starts the root helper"
home=${BANGER_HOME:-/var/lib/banger-quickstart}
subnet=${BANGER_SUBNET:-172.30.99.0/24}
owner=${BANGER_OWNER:-${SUDO_USER:-banger}}
bridge=br-banger
run=/run/banger-quickstart
helper_run=/run/banger-quickstart-root
export BANGER_SOCKET=$run/bangerd.sock

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

stop_all() {
    if [ -x "$home/bin/banger" ] && alive "$home/bangerd.pid"; then
        "$home/bin/banger" vm list -q | xargs -r "$home/bin/banger" vm delete
    fi
    local pid
    for pid in bangerd helper; do
        if alive "$home/$pid.pid"; then
            [ $pid = helper ] && "$home/bin/banger-helper" --teardown --socket "$helper_run/helper.sock" || true
            kill "$(cat "$home/$pid.pid")"
            wait_for 30 "the end of $pid" sh -c "! kill -0 $(cat "$home/$pid.pid")"
        fi
        rm -f "$home/$pid.pid"
    done
}

if [ "${1:-}" = --stop ]; then
    stop_all
    echo "Stopped. What was built is kept in $home; remove it with: rm -r $home"
    exit 0
fi
[ $# -eq 0 ] || die "unknown argument $1; see the head of this script"

need_packages gcc libc6-dev qemu-system-x86 e2fsprogs mmdebstrap uidmap util-linux ca-certificates
need_cargo

say "Building (release)"
bin=$(build_release)

if ! id "$owner" >/dev/null 2>&1; then
    useradd --system --home-dir "$home" --shell /usr/sbin/nologin "$owner"
fi
# mmdebstrap builds images in a user namespace; that needs a range of ids of its own.
if ! grep -q "^$owner:" /etc/subuid || ! grep -q "^$owner:" /etc/subgid; then
    usermod --add-subuids 300000-365535 --add-subgids 300000-365535 "$owner"
fi
install -d -m 0711 "$home" "$home/bin" "$helper_run"
install -d -m 0700 -o "$owner" -g "$(id -gn "$owner")" "$home/state" "$run"
install -d -m 0755 "$home/log" "$home/cache"

# Binaries are copied, so that the owner can run them wherever this checkout lies, and replaced only
# when they changed; then whatever runs the old ones is started anew. VMs run on meanwhile.
changed=
for name in banger bangerd banger-helper banger-agent; do
    if ! cmp -s "$bin/$name" "$home/bin/$name"; then
        install -m 0755 "$bin/$name" "$home/bin/.$name.new"
        mv "$home/bin/.$name.new" "$home/bin/$name"
        changed=yes
    fi
done

cat > "$home/config.toml.new" <<EOF
state_dir = "$home/state"
run_dir = "$run"
socket = "$BANGER_SOCKET"
helper_socket = "$helper_run/helper.sock"
agent_bin = "$home/bin/banger-agent"
default_image_name = "debian"
default_kernel_name = "debian"

[vm_defaults]
vcpu = 1
memory_mib = 512

[network]
bridge = "$bridge"
tap_prefix = "bgq"
cidr = "$subnet"
EOF
cmp -s "$home/config.toml.new" "$home/config.toml" || changed=yes
mv "$home/config.toml.new" "$home/config.toml"

if [ -n "$changed" ]; then
    for pid in bangerd helper; do
        if alive "$home/$pid.pid"; then
            kill "$(cat "$home/$pid.pid")"
            wait_for 30 "the end of $pid" sh -c "! kill -0 $(cat "$home/$pid.pid")"
        fi
    done
fi

if ! alive "$home/helper.pid"; then
    say "Starting the root helper"
    vmms=(--vmm "$(command -v qemu-system-x86_64)")
    # Firecracker runs in a jail or not at all.
    if command -v firecracker >/dev/null && command -v jailer >/dev/null; then
        vmms+=(--vmm "$(command -v firecracker)" --jailer "$(command -v jailer)" --vm-run-dir "$run")
    fi
    setsid "$home/bin/banger-helper" --socket "$helper_run/helper.sock" --owner "$(id -u "$owner")" \
        --state-dir "$home/state" --run-dir "$helper_run" --bridge "$bridge" --tap-prefix bgq --table banger_qs \
        --subnet "$subnet" "${vmms[@]}" --audit-log "$home/log/audit.jsonl" \
        >>"$home/log/helper.jsonl" 2>&1 </dev/null &
    echo $! > "$home/helper.pid"
fi
wait_for 20 "the helper's socket" test -S "$helper_run/helper.sock"

if ! alive "$home/bangerd.pid"; then
    say "Starting the daemon as user $owner"
    setsid setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups \
        env HOME="$home/state" "$home/bin/bangerd" --config "$home/config.toml" \
        >>"$home/log/bangerd.jsonl" 2>&1 </dev/null &
    echo $! > "$home/bangerd.pid"
fi
banger=$home/bin/banger
wait_for 30 "an answer of the daemon" "$banger" daemon status

if ! "$banger" kernel show debian >/dev/null 2>&1; then
    say "Importing a guest kernel: Debian's linux-image-cloud-amd64"
    deb=$(fetch_kernel_deb "$home/cache")
    chmod 0644 "$deb"
    "$banger" kernel import debian "$deb"
fi
if ! "$banger" image show debian >/dev/null 2>&1; then
    say "Building a Debian image with mmdebstrap"
    "$banger" image build debian --name debian
fi

say "Running a command in a new virtual machine"
status=0
"$banger" vm run --rm --name quickstart -- sh -c '
    echo "hello from the guest: $(hostname), kernel $(uname -r)"
    grep -E "^(PRETTY_NAME|VERSION_ID)=" /etc/os-release
    exit 7' || status=$?
echo "host kernel: $(uname -r)"
[ $status -eq 7 ] || die "the guest's command ended with 7, but $status came back"
echo "The command in the guest ended with exit code 7, and 7 came back."

cat <<EOF

banger runs. Three commands to try next:

    export BANGER_SOCKET=$BANGER_SOCKET PATH=$home/bin:\$PATH
    banger vm run --name web -d          # a machine of your own, in the background
    banger vm ssh web                    # a root shell in it
    banger vm delete web                 # gone without a trace

(./scripts/quickstart.sh --stop ends everything; logs are in $home/log)
EOF
