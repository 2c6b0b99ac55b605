# Firecracker by banger beside Firecracker by hand, on one host in one run. scripts/bench.sh has the
# test host run it, as root; it prints rows of the table, and what they are made of.
#
# By hand all is prepared: the files lie in the jail, the tap is on the bridge, the requests are
# written. What is timed is what a script cannot do without: the jailer, and a curl a request.
rounds=${rounds:-5}
# Rounds of each that are run and not counted: an emulated processor translates what is new to it.
warmup=${warmup:-3}
hand=/srv/xfs/hand
id=byhand
root=$hand/firecracker/$id/root
tap=tap-byhand
uid=2000000000

# The clock, in milliseconds, without a process of its own.
stamp() { at=$((${EPOCHREALTIME/[.,]/} / 1000)); }
median() { tail -n "$rounds" | sort -n | sed -n "$(((rounds + 1) / 2))p"; }
# row WHAT MEASURED GOAL VALUE LIMIT
row() { echo "| $1 | $2 | $3 | $([ "$4" -le "$5" ] && echo yes || echo NO) |"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
# call METHOD PATH BODY
call() {
    curl -sS --fail-with-body --unix-socket "$root/s/fc.sock" -X "$1" "http://x$2" \
        -H 'Content-Type: application/json' -d "$3"
}

# prepare FOLDER: a jail with everything in its place.
prepare() {
    rm -rf "$hand/firecracker"
    install -d -o $uid -g $uid "$root/s"
    cp --reflink=auto "$1"/* "$root/"
    chown $uid:$uid "$root"/*
}

launch() {
    jailer --id $id --uid $uid --gid $uid --exec-file "$(command -v firecracker)" \
        --chroot-base-dir "$hand" -- --api-sock /s/fc.sock >"$hand/log" 2>&1 </dev/null &
    launched=$!
    until [ -S "$root/s/fc.sock" ]; do kill -0 $launched; done
}

land() {
    kill -9 $launched
    wait $launched 2>/dev/null || true
}

boot_by_hand() {
    local file
    launch
    for file in "$hand"/requests/*; do
        call PUT "$(head -n 1 "$file")" "$(tail -n 1 "$file")"
    done
}

# Until the guest says a first word to who connects to its SSH port.
first_words() {
    local words= pid to from end=$((SECONDS + 60))
    trap '' PIPE # of a socat that found nobody
    until [[ $words == SSH-* ]]; do
        [ $SECONDS -lt $end ] || die "the guest says nothing"
        coproc CALL { exec socat - "UNIX-CONNECT:$root/s/vsock.sock"; } 2>/dev/null
        # Gone by themselves if it ends at once.
        pid=${CALL_PID:-} to=${CALL[1]:-} from=${CALL[0]:-}
        { echo "CONNECT 22" >&"$to" && read -r -t 5 _ <&"$from" && read -r -t 5 words <&"$from"; } 2>/dev/null || true
        { kill "$pid" && wait "$pid"; } 2>/dev/null || true
    done
}

# request NUMBER PATH BODY
request() { printf '%s\n%s\n' "$2" "$3" > "$hand/requests/$1"; }

say "what banger tells Firecracker is what is told by hand"
state_on_xfs
mkdir -p "$hand"/{requests,cold,frozen}
banger vm run -d --name bench --no-warm
run=$(dirname "$(ls /run/banger/*/s/fc.sock)")
curl -sS --unix-socket "$run/fc.sock" http://x/vm/config > "$hand/config.json"
banger vm exec bench -- sync
cp "/proc/$(vmms)/root/"{kernel,initrd,d?} "$hand/cold/"
banger vm delete bench
config() { jq -c "$1 | walk(if type == \"object\" then with_entries(select(.value != null)) else . end)" "$hand/config.json"; }
request 10 /boot-source "$(config '.["boot-source"]')"
request 20 /machine-config "$(config '.["machine-config"]')"
for drive in $(jq -r '.drives[].drive_id' "$hand/config.json"); do
    request "30-$drive" "/drives/$drive" "$(config ".drives[] | select(.drive_id == \"$drive\")")"
done
request 40 /network-interfaces/net0 "$(config '.["network-interfaces"][0]' | jq -c ".host_dev_name = \"$tap\"")"
request 50 /vsock "$(config '.vsock')"
request 60 /entropy '{}'
request 70 /actions '{"action_type":"InstanceStart"}'
ip tuntap add $tap mode tap user $uid vnet_hdr
ip link set $tap master br-fc up

say "a memory snapshot by hand"
prepare "$hand/cold"
boot_by_hand
first_words
call PATCH /vm '{"state":"Paused"}'
call PUT /snapshot/create '{"snapshot_type":"Full","snapshot_path":"/state","mem_file_path":"/memory"}'
cp --reflink=auto "$root"/{kernel,initrd,d?,state,memory} "$hand/frozen/"
land

say "a memory snapshot by banger"
banger vm run --rm --warm -- true

load='{"snapshot_path":"/state","mem_backend":{"backend_type":"File","backend_path":"/memory"},"resume_vm":true}'
# first_output OPTION: when it began and when the command of a new VM said something, in milliseconds.
# A shell of the owner's looks at the clock, so that no other process starts in between.
cat > watch.sh <<'EOF'
now() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
now
banger vm run --rm "$1" -- echo hello 2> "$2" | { read -r _; now; cat > /dev/null; }
EOF
first_output() {
    install -o banger -m 0600 /dev/null said
    setpriv --reuid banger --regid banger --init-groups env HOME=/var/lib/banger \
        BANGER_SOCKET=/run/banger/bangerd.sock bash "$PWD/watch.sh" "$1" "$PWD/said" > times
    ! grep 'starts cold' said
    { read -r begin; read -r end; } < times
    [ -n "$end" ] || die "no output: $(cat said)"
}
last_create() {
    banger ops show --json "$(banger ops list --json \
        | jq -r '[.[] | select(.kind == "vm-create")] | max_by(.started_unix_ms) | .id')"
}
# Each in a row of its own, so that what came before it is itself.
for _ in $(seq $((warmup + rounds))); do
    first_output --no-warm
    echo $((end - begin)) >> first.cold
    last_create > cold.json
    echo $(($(jq '.steps[] | select(.step == "await-running").ended_unix_ms' cold.json) - begin)) >> started.ours
done
for _ in $(seq $((warmup + rounds))); do
    prepare "$hand/cold"
    stamp; begin=$at
    boot_by_hand
    stamp; echo $((at - begin)) >> started.hand
    land
done
for _ in $(seq $((warmup + rounds))); do
    first_output --warm
    echo $((end - begin)) >> first.warm
    last_create > warm.json
done
for _ in $(seq $((warmup + rounds))); do
    prepare "$hand/frozen"
    stamp; begin=$at
    launch
    call PUT /snapshot/load "$load"
    stamp; echo $((at - begin)) >> loaded.hand
    first_words
    stamp; echo $((at - begin)) >> first.hand
    land
done
for file in started.* loaded.* first.[a-z]*; do say "$file: $(paste -sd' ' "$file")"; done
steps() { jq -r '[.steps[] | "\(.step) \(.ended_unix_ms - .started_unix_ms)"] | join(", ")' "$1"; }
say "cold: $(steps cold.json)"
say "warm: $(steps warm.json)"

ours=$(median < started.ours) byhand=$(median < started.hand)
row "vm run on Firecracker, request to InstanceStart answered" "$ours ms; by hand $byhand ms" \
    "<= 2 x by hand (is $(ratio "$ours" "$byhand"))" "$ours" $((2 * byhand))
cold=$(median < first.cold) warm=$(median < first.warm) bare=$(median < first.hand)
row "warm vm run on Firecracker, first output" "$warm ms; cold $cold ms" \
    "<= 1/3 of cold (is $(ratio "$warm" "$cold"))" $((3 * warm)) "$cold"
row "warm vm run on Firecracker, first output" "$warm ms; bare load by hand $bare ms" \
    "<= 2 x bare (is $(ratio "$warm" "$bare"))" "$warm" $((2 * bare))

say "a base of 2 GiB"
install -D /usr/bin/true big/usr/bin/true
head -c 1048576 /dev/urandom > piece
for _ in $(seq 2048); do cat piece; done > big/content
banger image import big "$PWD/big"
used() { sync; df -B1 --output=used /srv/xfs | tail -n 1; }
banger vm create --no-start --image big --name first >/dev/null # what all disks are cloned from is made once
before=$(used)
banger vm create --no-start --image big --name second >/dev/null
bytes=$(($(used) - before))
row "a new VM from a base of 2 GiB, bytes written" "$((bytes / 1024)) KiB" "< 1024 KiB" "$bytes" 1048575
