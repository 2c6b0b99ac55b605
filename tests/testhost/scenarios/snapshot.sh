# Devices of VMs; the host has a loop of its own.
devices() {
    dmsetup ls | grep banger || true
    losetup -a | grep /var/lib/banger || true
    ls /dev/banger 2>/dev/null || true
}
disks_gone() { [ -z "$(devices)" ]; }
before=$(world)
state=/var/lib/banger/s

say "ext4 cannot share blocks, so device-mapper does"
banger doctor | tee doctor.txt
grep 'disks .*dm-snapshot' doctor.txt
banger vm create --no-start --name first
full=$(df --output=used -k $state | tail -n 1)
banger vm create --vmm $vmm --no-start --name web
sync -f $state
took=$(($(df --output=used -k $state | tail -n 1) - full))
say "a new VM took $took KiB"
equal "its back end" dm-snapshot "$(banger vm show web | jq -r .disk.backend)"
equal "devices before the first start" "" "$(devices)"
banger vm delete first

say "it boots, and its root is as large as it was asked to be"
banger vm start web
dmsetup table
losetup -a
ls -l /dev/banger
inside() { banger vm exec web -- sh -ec "$1"; }
size=$(inside "df -k / | tail -n 1 | awk '{print \$2}'")
say "/ has $size KiB"
[ "$size" -gt 950000 ] || die "/ has $size KiB"
inside 'dd if=/dev/urandom of=/data bs=1M count=100 2>/dev/null; sha256sum /data > /sum; sync'
equal "its root carries containers" carries "$(carries_containers)"

say "stopped, nothing of it is left but files; started again, all of them are there"
banger vm stop web
equal "devices after a stop" "" "$(devices)"
banger vm start web
inside 'sha256sum -c /sum; echo more > /more; sync'
equal "checks of disks that were new or left clean" 0 "$(checks)"

say "a VMM that is killed leaves no device"
kill -9 "$(vmms)"
until_true 30 disks_gone
banger vm start web
[ "$(checks)" = 2 ] || die "of a killed guest's disks $(checks) were checked"
equal "what was synced" more "$(inside 'sha256sum -c /sum >/dev/null; cat /more')"

say "daemon and helper are killed under it, and then in the middle of a start"
systemctl kill -s KILL bangerd banger-helper
until_true 30 banger daemon status
equal "it still runs" more "$(inside 'cat /more')"
banger vm stop web
for pause in 0.2 0.5 0.8; do
    banger vm start web >/dev/null 2>&1 & started=$!
    sleep $pause # not for something: to hit it anywhere
    systemctl kill -s KILL bangerd banger-helper
    wait $started || true
    until_true 30 banger daemon status
    banger vm stop web >/dev/null 2>&1 || true
    until_true 30 disks_gone
done
banger vm start web
inside 'sha256sum -c /sum'

say "a damaged disk is not started from, until it is repaired"
banger vm stop web
work=$(echo $state/vms/*/work.ext4)
debugfs -w -R 'clri <2>' "$work"
debugfs -w -R 'ssv state 2' "$work"
! banger vm start web 2> damaged.txt || die "it starts from a damaged disk"
cat damaged.txt
grep -q 'UNEXPECTED INCONSISTENCY' damaged.txt
grep -q 'banger vm start --repair web' damaged.txt
until_true 30 disks_gone
banger vm start --repair web
inside 'sha256sum -c /sum'

say "what nobody knows is swept when the daemon starts"
systemctl stop bangerd
kill -9 "$(vmms)"
no_vmms() { [ -z "$(vmms)" ]; }
until_true 10 no_vmms
systemctl start bangerd
until_true 30 disks_gone

say "deleted, nothing is left"
banger vm delete web
nothing_left "$before"
