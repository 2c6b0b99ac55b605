#!/usr/bin/env bash
# Measures banger beside its peers and writes BENCHMARKS.md. Needs root for the real guests; they
# run under the quick start's daemon, which is started if it does not run. Where FIRECRACKER_BIN and
# JAILER_BIN name static programs, the same build is measured on Firecracker in the test host.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

need_packages openssh-client e2fsprogs iproute2 jq git rsync docker-registry skopeo umoci
home=${BANGER_HOME:-/var/lib/banger-quickstart}
./scripts/quickstart.sh >&2
export BANGER_SOCKET=/run/banger-quickstart/bangerd.sock BANGER_BENCH_HELPER_PID
export BANGER_BENCH_DAEMON_PID_FILE=$home/bangerd.pid BANGER_TORTURE_ROUNDS=${BANGER_TORTURE_ROUNDS:-30}
BANGER_BENCH_HELPER_PID=$(cat "$home/helper.pid")
# OpenSSH is met with its own server in the guest, which the quick start's image does not have.
export BANGER_BENCH_SSH_IMAGE=bench-openssh
"$home/bin/banger" image show $BANGER_BENCH_SSH_IMAGE >/dev/null 2>&1 \
    || "$home/bin/banger" image build debian --name $BANGER_BENCH_SSH_IMAGE --include openssh-server,rsync >&2

say "In-process" >&2
cargo bench --locked --quiet --bench in_process -- --noplot | tee /dev/stderr | grep -E 'time:|^[a-z]+: ' > /tmp/bench.$$
trap 'rm -f /tmp/bench.$$' EXIT
say "Whole commands" >&2
table=$(cargo bench --locked --quiet --bench commands)
say "Restarts" >&2
need_guests >&2
survived=$(cargo nextest run -p banger --locked --no-capture --retries 0 --test real torture 2>&1 | tee /dev/stderr \
    | grep -oE '[0-9]+ rounds survived, [0-9]+ resources leaked, [0-9]+ VMs lost' || echo no)
on_firecracker=
if [ -n "${FIRECRACKER_BIN:-}" ] && [ -n "${JAILER_BIN:-}" ]; then
    say "Firecracker, in the test host" >&2
    on_firecracker=$(BANGER_TEST_PROGRAMS=$home/bin scripts/testhost.sh benches/firecracker.sh installed 900 2>&1 \
        | tee /dev/stderr | grep '^| ')
else
    echo "skipped: Firecracker, for FIRECRACKER_BIN and JAILER_BIN do not name programs" >&2
fi

{
    echo "# Benchmarks"
    echo
    echo "Written by \`scripts/bench.sh\`. Ratios count; absolute times are those of one small machine."
    echo
    printf 'Host: %s, %s cores, Linux %s; ' "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r | grep -oE '^[0-9]+\.[0-9]+\.[0-9]+')"
    printf 'guests: %s\n\n' "$("$home/bin/banger" doctor --json 2>/dev/null | jq -r '.[] | select(.name=="vmm") | .detail')"
    echo "$table"
    echo "| daemon and helper killed under real VMs that are used | $survived | all, 0 leaked, 0 lost | $([ "$survived" = no ] && echo NO || echo yes) |"
    if [ -n "$on_firecracker" ]; then
        echo "$on_firecracker"
        echo
        echo "What is on Firecracker was measured in the test host, which is emulated: $("$FIRECRACKER_BIN" --version | head -n 1)"
    fi
    echo
    echo "In process (criterion: low, middle, high):"
    echo
    echo '```'
    paste -d ' ' - - < /tmp/bench.$$ | sed 's/  */ /g'
    echo '```'
} > BENCHMARKS.md
cat BENCHMARKS.md
