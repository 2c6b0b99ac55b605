before=$(world)
shown() { banger vm show web | jq -r "$1"; }
inside() { banger vm exec web -- sh -ec "$1"; }
told() { banger events --since $mark | grep -q "$1"; }
# From here on only what comes is heard.
listen() { mark=$(($(banger events --json | tail -n 1 | jq .seq) + 1)); }
# heard TEXT: whoever watches events is told.
heard() { until_true 60 told "$1"; banger events --since $mark | grep -m 1 "$1"; }
reached() { ping -c 1 -W 1 "$address" >/dev/null; }

banger vm run --vmm $vmm -d --nat --name web
address=$(shown .address)
pid=$(shown .pid)
boot=$(shown .guest_boot_id)
reached

say "a firewall is loaded anew: our table went with the rest"
listen
nft flush ruleset
heard 'NAT given again to: web'
until_true 10 sh -c "nft list table inet banger | grep -q $address"

say "the bridge is deleted"
listen
ip link delete br-fc
heard 'put on the bridge again: web'
until_true 10 reached

say "somebody brings the bridge down and takes its address"
listen
ip address flush dev br-fc
ip link set br-fc down
heard 'made again: the bridge'
until_true 10 reached

say "Docker comes, whose chain drops what is forwarded"
listen
nft add table ip filter
nft add chain ip filter FORWARD '{ type filter hook forward priority 0; policy drop; }'
heard 'ip filter FORWARD drops what no rule of it accepts'
banger doctor | grep -A 1 firewall | grep 'DOCKER-USER -i br-fc'
nft delete table ip filter

say "the VM's tap is deleted: told, and a restart is the way out"
listen
ip link delete "$(shown .tap)"
heard 'web: network: its tap .* is gone'
banger vm list | grep 'running (network)'
equal "boot" "$boot" "$(shown .guest_boot_id)"
banger vm restart web
reached
pid=$(shown .pid)
boot=$(shown .guest_boot_id)

say "its VMM is stopped by a signal, and goes on"
listen
kill -STOP "$pid"
heard "web: vmm-stopped: its VMM, process $pid"
banger vm list | grep 'running (vmm-stopped)'
kill -CONT "$pid"
heard 'web: vmm-stopped no more'
inside true

say "stopped again, it can still be ended, and soon"
kill -STOP "$pid"
SECONDS=0
banger vm stop web
[ $SECONDS -lt 60 ] || die "it took $SECONDS s"
equal "VMMs" "" "$(vmms)"
banger vm start web
boot=$(shown .guest_boot_id)

say "the guest hangs: its CPUs are halted behind our back"
listen
pid=$(shown .pid)
case $(shown .vmm) in
    qemu*)
        api=$(find /run/banger -name 'api.sock')
        (echo '{"execute":"qmp_capabilities"}'; echo '{"execute":"stop"}'; sleep 1) \
            | socat - "UNIX-CONNECT:$api" ;;
    *)
        api=$(find /run/banger -name fc.sock)
        curl -sS --unix-socket "$api" -X PATCH -d '{"state":"Paused"}' http://localhost/vm ;;
esac
heard 'web: unresponsive: '
banger vm list | grep 'running (unresponsive)'
banger vm kill web
equal "VMMs" "" "$(vmms)"
banger vm start web
pid=$(shown .pid)
boot=$(shown .guest_boot_id)

say "the host's clock is set"
listen
date -s '+1 hour' >/dev/null
heard 'clock was set 3[56].* ms forward; clocks of guests set: 1'
apart=$(($(inside 'date +%s') - $(date +%s)))
[ ${apart#-} -le 5 ] || die "the guest's clock is $apart s off"
listen
date -s '-1 hour' >/dev/null
heard 'clock was set 3[56].* ms back; clocks of guests set: 1'
apart=$(($(inside 'date +%s') - $(date +%s)))
[ ${apart#-} -le 5 ] || die "the guest's clock is $apart s off"

say "the helper is gone, hangs, and is back"
listen
systemctl stop banger-helper
heard 'web: no-helper: '
banger vm list | grep 'running (no-helper)'
inside true
! banger vm create --vmm $vmm --name other 2> /run/refused.txt || die "created without a helper"
cat /run/refused.txt
grep -q banger-helper /run/refused.txt
! banger doctor > doctor.txt || die "the doctor sees nothing"
grep -A 1 'root helper' doctor.txt
systemctl start banger-helper
heard 'web: no-helper no more'
listen
helper=$(systemctl show -P MainPID banger-helper)
kill -STOP "$helper"
heard 'web: no-helper: '
kill -CONT "$helper" || true # its service manager may have been faster
heard 'web: no-helper no more'
# What could not be taken back without it can be now.
if banger vm show other >/dev/null 2>&1; then banger vm delete other; fi
equal "VMM" "$pid" "$(vmms)"
equal "boot" "$boot" "$(shown .guest_boot_id)"

say "the disk is full: what adds is refused, what runs can be stopped"
at=/var/lib/banger/s
fallocate -l "$(($(stat -f -c '%f * %S' $at)))" $at/../filler || true
dd if=/dev/zero of=$at/../filler2 bs=64k 2>/dev/null || true
df $at | tail -n 1
! banger vm create --vmm $vmm --name other 2> /run/refused.txt || die "created on a full disk"
cat /run/refused.txt
banger vm stop web
equal "VMMs" "" "$(vmms)"
equal "state" stopped "$(shown .state)"
rm $at/../filler*
banger vm start web
inside true

banger vm delete web
nothing_left "$before"
