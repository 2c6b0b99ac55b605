before=$(world)
state() { banger vm show web | jq -r .state; }
inside() { banger vm exec web -- sh -c "$1"; }
count() { inside 'cat /root/count 2>/dev/null || echo 0'; }
later() { [ "$(date +%s)" -ge "$1" ]; }
counts_on() { [ "$(count)" -gt "$1" ]; }

say "a guest with something that runs in it"
banger vm run -d --name web --memory 256M --vmm "$vmm"
shown=$(banger vm show web)
jq -r .vmm <<<"$shown"
id=$(jq -r .id <<<"$shown")
inside 'echo kept > /kept; echo kept > /root/kept; mkdir /run/m; echo mem > /run/m/kept'
inside '/bin/busybox setsid sh -c "i=0; while :; do i=\$((i+1)); echo \$i > /root/count; sleep 0.1; done" >/dev/null 2>&1 &'
until_true 30 counts_on 3
random=$(inside 'cat /proc/sys/kernel/random/uuid')

for round in 1 2; do
    say "suspended ($round): no process, no memory, no link, no rule"
    banger vm suspend web
    equal "state" suspended "$(state)"
    equal "VMMs" "" "$(vmms)"
    du -k --apparent-size "/var/lib/banger/s/vms/$id/saved/memory"
    used=$(du -k "/var/lib/banger/s/vms/$id/saved/memory" | cut -f1)
    [ "$used" -gt 1024 ] && [ "$used" -lt 200000 ] || die "memory of $used KiB"
    if [ $round = 2 ]; then systemctl restart bangerd; fi
    until_true 60 banger daemon status
    until_true 10 later $(($(date +%s) + 3))  # a clock that stood still would show it
    banger vm resume web
    ahead=$(($(date +%s) - $(inside 'date +%s')))
    [ "${ahead#-}" -le 2 ] || die "its clock is off by $ahead s"
    equal "boot id" "$(jq -r .guest_boot_id <<<"$shown")" "$(inside 'cat /proc/sys/kernel/random/boot_id')"
    equal "files" "kept kept mem" "$(echo $(inside 'cat /kept /root/kept /run/m/kept'))"
    now=$(count)
    until_true 30 counts_on $((now + 3))
    [ "$random" != "$(inside 'cat /proc/sys/kernel/random/uuid')" ] || die "the same random numbers"
done

say "stopped and started, the disks are whole"
banger vm stop web
banger vm start web
equal "files" "kept kept" "$(echo $(inside 'cat /kept /root/kept'))"
inside 'dmesg | grep -i "ext4.*error"' && die "the file system has errors"

say "memory that cannot be read leaves it suspended, and there is a way out"
banger vm suspend web
truncate -s 100K "/var/lib/banger/s/vms/$id/saved/memory"
banger vm resume web && die "resumed without its memory"
equal "state" suspended "$(state)"
equal "VMMs" "" "$(vmms)"
banger vm start --discard-memory web
equal "files" "kept kept" "$(echo $(inside 'cat /kept /root/kept'))"

say "deleted while suspended, nothing is left"
banger vm suspend web
banger vm delete web
nothing_left "$before"
