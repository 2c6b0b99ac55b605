before=$(world)
all="one two three four five six seven eight nine ten"
small="--vmm $vmm --memory 128 --disk overlay"
snapshots() { ls /var/lib/banger/s/warm; }
no_snapshots() { [ -z "$(snapshots)" ]; }
# How the guest of a VM came to be: the step of its creation that says so.
came() {
    local id
    id=$(banger vm show "$1" | jq -r .id)
    journalctl -u bangerd -o cat | grep "$id" | grep '"step done"' \
        | grep -E '"step":"(ensure-disks|keep-snapshot)"' | grep -oE 'snapshot [0-9a-f]+|"kept"' | tail -n 1
}
# first_output NAME OPTION...: milliseconds from the request until the command says something.
first_output() {
    local name=$1 began=$EPOCHREALTIME
    shift
    banger vm run --name "$name" $small "$@" -- sh -c 'echo out; cat /proc/uptime' 2> "$name.err" | {
        read -r line
        equal "what the command says" out "$line"
        echo $(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
        cat > /dev/null
    }
}

say "the first VM of a kind leaves its memory, and is a VM like any other"
say "first output, memory kept: $(first_output one --warm) ms"
came one | grep kept
equal "snapshots" 1 "$(snapshots | wc -w)"
equal "its name" one "$(banger vm exec one -- hostname)"
du -k /var/lib/banger/s/warm/*/*

say "nine more go on from it"
for name in ${all#one }; do
    say "$name: first output after $(first_output $name --warm) ms"
    came $name | grep snapshot
    grep -v cold $name.err
done
equal "VMMs" 10 "$(vmms | wc -l)"
who='hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id /sys/class/net/eth0/address
     ip -4 -o addr show eth0 | awk "{print \$4}"; head -c 16 /dev/urandom | od -An -tx1'
for name in $all; do banger vm exec $name -- sh -c "$who"; done > who.txt
equal "lines" 60 "$(wc -l < who.txt)"
equal "lines that two of them share" "" "$(sort who.txt | uniq -d)"
equal "host keys" 10 "$(banger vm list --json | jq -r '.[].host_key' | sort -u | wc -l)"
for name in $all; do
    banger vm show $name | jq -r '.name, .id, .guest_boot_id, .mac' > told.txt
    while read -r line; do grep -qxF "$line" who.txt || die "$name: the guest has no $line"; done < told.txt
    ping -c 1 -W 10 "$(banger vm show $name | jq -r .address)" > /dev/null
    equal "$name by SSH, with its own host key" $name "$(echo hostname | banger vm ssh $name)"
done
banger vm exec two -- ping -c 1 -W 10 "$(banger vm show nine | jq -r .address)" > /dev/null
off=$(($(banger vm exec ten -- date +%s) - $(date +%s)))
[ ${off#-} -lt 5 ] || die "the clock is $off s off"

say "one of them stops and starts as any other"
banger vm exec two -- sh -c 'echo kept > /root/marker; echo kept > /etc/marker'
banger vm stop two
banger vm start two
equal "what was written" "kept kept two" "$(banger vm exec two -- cat /root/marker /etc/marker /etc/hostname | xargs)"
banger vm delete $all

say "cold and warm in turns"
for round in 1 2 3 4 5; do
    cold=$(first_output cold --no-warm)
    warm=$(first_output warm --warm)
    say "first output: cold $cold ms, warm $warm ms"
    echo "$cold $warm" >> times.txt
    banger ops list --json | jq -r '.[] | select(.subject == "warm" and .kind == "vm-create") | .id' | head -n 1 > op.txt
    [ $round -lt 5 ] || banger ops show "$(cat op.txt)"
    banger vm delete cold warm
done
median() { cut -d' ' -f"$1" times.txt | sort -n | sed -n 3p; }
say "medians: cold $(median 1) ms, warm $(median 2) ms"

say "what is damaged is not gone on from"
memory=$(echo /var/lib/banger/s/warm/*/memory)
size=$(stat -c %s "$memory")
truncate -s 0 "$memory"
first_output cut --warm > /dev/null
came cut | grep kept
state=$(echo /var/lib/banger/s/warm/*/state)
size=$(stat -c %s "$state")
[ "$size" -gt 0 ] || state=$memory size=$(stat -c %s "$memory")
truncate -s 0 "$state"
truncate -s "$size" "$state"
first_output spoilt --warm > /dev/null
grep 'starts cold: ' spoilt.err
equal "its name" spoilt "$(banger vm exec spoilt -- hostname)"
equal "snapshots" "" "$(snapshots)"
first_output again --warm > /dev/null
came again | grep kept

say "deleted, nothing is left, and snapshots go with their image"
banger vm delete cut spoilt again
nothing_left "$before"
banger image delete tiny
until_true 20 no_snapshots
