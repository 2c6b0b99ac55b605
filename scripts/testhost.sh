#!/usr/bin/env bash
# Runs a scenario on the test host with the programs of this checkout and shows what it says as it
# says it. The file is a shell script, run by root there after tests/testhost/scenarios/prelude.sh.
#
#   scripts/testhost.sh FILE [booted|installed] [SECONDS] [OTHER_FILE...]
#
# It starts on a host that has just booted, or on one on which banger is installed and runs (the
# default), has SECONDS (default 300), and finds the other files in /opt/files. Where FIRECRACKER_BIN
# and JAILER_BIN name static programs, these are installed too.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 FILE [booted|installed] [SECONDS] [OTHER_FILE...]"; exit 2; }
export BANGER_SCENARIO BANGER_SCENARIO_START=${2:-installed} BANGER_SCENARIO_LIMIT=${3:-300} BANGER_SCENARIO_FILES=
BANGER_SCENARIO=$(realpath -e "$1")
for file in "${@:4}"; do
    BANGER_SCENARIO_FILES+=:$(realpath -e "$file")
done
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_testhost
exec cargo nextest run -p banger --locked --no-capture --retries 0 --test testhost a_scenario_given_by_the_environment
