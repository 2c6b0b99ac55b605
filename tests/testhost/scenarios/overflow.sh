devices() {
    dmsetup ls | grep banger || true
    losetup -a | grep /var/lib/banger || true
    ls /dev/banger 2>/dev/null || true
}
before=$(world)
state() {
    banger vm list --json | jq -r '.[] | select(.name == "web") |
        if any(.upkeep.conditions[]; .kind == "paused") then "paused" else .state end'
}
is() { [ "$(state)" = "$1" ]; }
heard() { grep -q "$1" events.txt; }

say "a small disk is filled"
banger vm create --vmm $vmm --disk dm-snapshot --disk-size 96M --name web
banger events --follow > events.txt 2>&1 & events=$!
inside() { banger vm exec web -- sh -ec "$1"; }
inside 'dd if=/dev/urandom of=/a bs=1M count=40 2>/dev/null; sha256sum /a > /sum; sync'
banger vm show web | jq .disk
inside 'dd if=/dev/urandom of=/b bs=1M count=38 2>/dev/null; sync; sha256sum /b >> /sum; sync'
until_true 30 heard '% of the disk of web'
say "warned: $(grep -m 1 '% of the disk' events.txt)"
is running || die "it is $(state)"
equal "warnings" 1 "$(grep -c '% of the disk of web' events.txt)"

say "before it is full the guest stands still, and says why"
inside 'dd if=/dev/urandom of=/c bs=1M count=9 2>/dev/null; sync; sha256sum /c >> /sum; sync; echo whole' \
    > writer.txt 2>&1 & writer=$!
until_true 60 is paused
say "paused: $(grep -m 1 'web: paused: ' events.txt)"
banger vm list
banger vm show web | jq .disk
banger vm show web | jq -r .disk.paused | grep '% of the disk of web'
! inside true 2> refused.txt || die "it can be entered"
grep -q 'vm set web --disk-size' refused.txt
dmsetup status | grep banger
dmsetup status | grep -v Invalid | grep -q 'snapshot [0-9]'

say "a daemon that is killed finds it standing still"
systemctl kill -s KILL bangerd banger-helper
until_true 30 banger daemon status
until_true 30 is paused

say "with more room it goes on, and nothing is lost"
banger vm set web --disk-size 256M
until_true 30 is running
wait $writer || true
until_true 60 inside 'grep -q /c /sum'
inside 'sha256sum -c /sum'
banger vm stop web
equal "devices after a stop" "" "$(devices)"
banger vm start web
inside 'sha256sum -c /sum'
size=$(inside "df -k / | tail -n 1 | awk '{print \$2}'")
[ "$size" -gt 240000 ] || die "/ has $size KiB"

say "CPUs and memory are changed when it is stopped; disks never shrink"
! banger vm set web --vcpu 2 || die "changed while it runs"
! banger vm set web --disk-size 96M || die "shrunk"
banger vm stop web
banger vm set web --vcpu 2 --memory 300M --work-disk-size 2G
banger vm start web
equal "CPUs" 2 "$(inside 'grep -c ^processor /proc/cpuinfo')"

kill $events # it went on with the daemon that came after
banger vm delete web
equal "devices at the end" "" "$(devices)"
nothing_left "$before"
