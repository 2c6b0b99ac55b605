# The host goes down in good order, its VMs stopped, then suspended; then its power fails. Each time it
# comes up again, and its VMs are as their owner's word and their policies say.
reboot=100 power_cut=101
kept=/var/tmp/kept # what one boot tells the next
mkdir -p $kept
shown() { banger vm show "$1" | jq -r "$2"; }
inside() { banger vm exec "$1" -- sh -ec "$2"; }
is() { [ "$(shown "$1" .state)" = "$2" ]; }
count() { inside "$1" 'cat /root/count 2>/dev/null || echo 0'; }
counts_on() { [ "$(count "$1")" -gt "$2" ]; }
boot() { shown "$1" .guest_boot_id; }
keep_boots() { for vm in "$@"; do boot "$vm" > "$kept/$vm.boot"; done; }
same_boot() { equal "boot of $1" "$(cat "$kept/$1.boot")" "$(boot "$1")"; }
other_boot() { [ "$(cat "$kept/$1.boot")" != "$(boot "$1")" ] || die "$1 is in the same boot"; }
# What the unit said that puts VMs away, as the last boot ended.
put_away() {
    cat $kept/guests.txt
    grep -q "^$1 of $1 put away" $kept/guests.txt || die "not all were put away"
    grep -qx 'result: success' $kept/guests.txt || die "not within systemd's limit"
    rm $kept/guests.txt
}
all_ended() { banger ops list --json | jq -e 'all(.[]; .outcome != "running")'; }

case $phase in
1)
    mkdir /etc/systemd/system/banger-guests.service.d
    cat > /etc/systemd/system/banger-guests.service.d/kept.conf <<UNIT
[Service]
StandardOutput=append:$kept/guests.txt
StandardError=inherit
ExecStopPost=+/bin/sh -c 'echo "result: \${SERVICE_RESULT}" >> $kept/guests.txt'
UNIT
    systemctl daemon-reload
    world > $kept/world

    say "VMs of every kind: one that is to be on always, one without a policy, one suspended"
    banger vm run --vmm $vmm -d --nat --restart always --name ever
    banger vm run --vmm $vmm -d --name once
    banger vm run --vmm $vmm -d --name idle
    keep_boots ever once idle
    banger vm suspend idle
    for vm in ever once; do inside $vm 'echo last > /last; echo last > /root/last'; done
    say "the host is rebooted"
    exit $reboot
    ;;
2)
    say "they were stopped within the limit"
    put_away 2
    until_true 60 is ever running
    other_boot ever
    equal "last write" "last last" "$(inside ever 'cat /last /root/last' | xargs)"
    equal "state" stopped "$(shown once .state)"
    equal "how it ended" null "$(shown once .last_failure)"
    equal "state" suspended "$(shown idle .state)"
    say "and can be used as before"
    banger vm start once
    equal "last write" "last last" "$(inside once 'cat /last /root/last' | xargs)"
    banger vm resume idle
    same_boot idle
    banger vm stop idle

    say "from now on VMs are suspended when the host goes down"
    sed -i '1i on_shutdown = "suspend"' /etc/banger/config.toml
    /usr/local/bin/banger system restart --limit 60s
    for vm in ever once; do
        inside $vm 'mkdir /run/m; echo mem > /run/m/kept'
        inside $vm '/bin/busybox setsid sh -c "i=0; while :; do i=\$((i+1)); echo \$i > /root/count; sleep 0.1; done" >/dev/null 2>&1 &'
        until_true 30 counts_on $vm 3
    done
    keep_boots ever once
    say "the host is rebooted"
    exit $reboot
    ;;
3)
    say "what ran in them goes on"
    put_away 2
    for vm in ever once; do
        until_true 60 is $vm running
        same_boot $vm
        equal "memory" mem "$(inside $vm 'cat /run/m/kept')"
        now=$(count $vm)
        until_true 30 counts_on $vm $((now + 3))
    done
    equal "state" stopped "$(shown idle .state)"
    inside ever 'echo synced > /root/synced; sync'
    inside once 'echo synced > /root/synced; sync'
    say "the power fails, in the middle of a start"
    (banger vm run --vmm $vmm -d --name half > /dev/null 2>&1) & half=$!
    begun() { banger vm show half; }
    until_true 20 begun
    kill $half || true
    exit $power_cut
    ;;
4)
    say "nothing of the last boot is believed, and policies count"
    until_true 90 is ever running
    until_true 90 all_ended
    other_boot ever
    equal "what was synced" synced "$(inside ever 'cat /root/synced')"
    equal "state" stopped "$(shown once .state)"
    equal "how it ended" "the host was restarted" "$(shown once .last_exit.how)"
    equal "state" stopped "$(shown idle .state)"
    if banger vm show half > half.txt 2>&1; then jq -r '"half is \(.state)"' half.txt; banger vm delete half; fi
    equal "VMMs" "$(shown ever .pid)" "$(vmms)"
    address=$(shown ever .address)
    equal "NAT" "$address" "$(nft list table inet banger | grep -oE '172\.30\.5\.([2-9]|[0-9]{2,3})\b' | sort -u | xargs)"
    ping -c 1 -W 5 "$address" >/dev/null
    banger vm start once
    equal "what was synced" synced "$(inside once 'cat /root/synced')"
    ! inside once 'dmesg | grep -i "ext4.*error"' || die "the file system has errors"
    banger doctor
    say "deleted, nothing is left"
    banger vm delete ever once idle
    nothing_left "$(cat $kept/world)"
    ;;
esac
