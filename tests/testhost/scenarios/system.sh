# banger as a part of its host: restarted, killed, hung, upgraded and removed under a VM that runs.
shown() { banger vm show web | jq -r "$1"; }
system() { /usr/local/bin/banger system "$@"; }

say "installed, and as it should be"
system status
system status --json | jq -e '.problems == [] and .owner == "banger" and ([.sockets[].private] | all)' >/dev/null
equal "what the daemon tells systemd" "0 VMs, 0 running" "$(unit bangerd StatusText)"
! systemd-analyze verify /etc/systemd/system/banger*.service 2>&1 | grep banger || die "systemd finds fault with the units"
system install | tee again.txt
! grep -Ev '^kept' again.txt || die "the second installation changed something"

say "never as root, and nobody else's"
code=0
/usr/local/lib/banger/bangerd --config /etc/banger/config.toml > root.txt 2>&1 || code=$?
equal "exit code" 78 $code
grep -q 'never runs as root.*banger system install' root.txt
for socket in /run/banger/bangerd.sock /run/banger-root/helper.sock; do
    ! setpriv --reuid nobody --regid nogroup --clear-groups socat -u OPEN:/dev/null "UNIX-CONNECT:$socket" || die "anybody reaches $socket"
done
code=0
setpriv --reuid nobody --regid nogroup --clear-groups /usr/local/bin/banger --socket /run/banger/bangerd.sock ps || code=$?
equal "exit code" 3 $code

say "a daemon under these walls still makes user namespaces, in which images are built"
walls=$(systemctl cat bangerd | grep -E '^(CapabilityBoundingSet|Protect|ReadWritePaths|User)' | sed 's/^/-p /' | tr '\n' '\t')
IFS=$'\t' read -ra walls <<<"${walls//-p /-p$'\t'}"
equal "ids in a namespace" 2 "$(systemd-run --quiet --wait --pipe --collect "${walls[@]}" \
    unshare --map-root-user --map-users=auto --map-groups=auto wc -l /proc/self/uid_map | cut -d' ' -f1)"

say "a VM"
banger vm run --vmm "$vmm" -d --name web
boot=$(shown .guest_boot_id)
process=$(vmms)
untouched() {
    equal "VMM" "$process" "$(vmms)"
    equal "state" running "$(shown .state)"
    equal "pid" "$process" "$(shown .pid)"
    equal "boot" "${boot//-/}" "$(banger vm exec web -- cat /proc/sys/kernel/random/boot_id | tr -d -)"
}

say "both units are restarted, and a command in it does not notice"
(banger vm exec web -- sh -c 'sleep 8; cat /proc/sys/kernel/random/boot_id' > through.txt) & through=$!
both; systemctl restart banger-helper bangerd; both_anew
equal "what the daemon tells systemd" "1 VMs, 1 running" "$(unit bangerd StatusText)"
untouched
wait $through
equal "boot that the command saw" "${boot//-/}" "$(tr -d - < through.txt)"

say "all processes of both units are killed"
both; systemctl kill --signal=SIGKILL banger-helper bangerd; both_anew
untouched

say "both hang, and their watchdog ends them"
for unit in bangerd banger-helper; do
    mkdir -p /run/systemd/system/$unit.service.d
    printf '[Service]\nWatchdogSec=6s\nTimeoutAbortSec=2s\n' > /run/systemd/system/$unit.service.d/quick.conf
done
systemctl daemon-reload
both; system restart --limit 60s; both_anew
both; kill -STOP "$daemon" "$helper"; both_anew
rm -r /run/systemd/system/banger*.d; systemctl daemon-reload
untouched

say "other programs are put in place"
installed=(/usr/local/bin/banger /usr/local/lib/banger/bangerd /usr/local/lib/banger/banger-helper /usr/local/lib/banger/banger-agent)
mkdir /opt/new /opt/bad
cp "${installed[@]}" /opt/new
for program in /opt/new/*; do echo >> "$program"; done
both; /opt/new/banger system upgrade --limit 60s; both_anew
cmp /opt/new/bangerd /usr/local/lib/banger/bangerd
untouched
system status >/dev/null
equal "what is in the directory" "banger-agent banger-helper bangerd" "$(ls -A /usr/local/lib/banger | xargs)"
system upgrade --from /opt/new 2>&1 | grep -q 'installed already'

say "programs that do not serve are taken back"
cp /opt/new/* /opt/bad
printf '#!/bin/sh\nexit 1\n' > /opt/bad/bangerd
code=0
system upgrade --from /opt/bad --limit 10s > bad.txt 2>&1 || code=$?
cat bad.txt
equal "exit code" 1 $code
grep -q 'the old ones are back and serve' bad.txt
cmp /opt/new/bangerd /usr/local/lib/banger/bangerd
untouched
system status >/dev/null

say "while something is being done nothing is replaced"
echo >> /opt/bad/banger-agent; cp /opt/new/bangerd /opt/bad/bangerd
banger vm run --vmm "$vmm" -d --name busy & busy=$!
is_busy() { banger ops list --json | jq -e 'any(.[]; .ended_unix_ms == null)'; }
until_true 20 is_busy
code=0
system upgrade --from /opt/bad --limit 60s 2> refused.txt || code=$?
equal "exit code" 1 $code
grep 'operations run' refused.txt
system upgrade --from /opt/bad --limit 60s --wait
wait $busy
banger vm delete busy
untouched

say "uninstalled only when no VM runs; data stays"
code=0
system uninstall 2> refused.txt || code=$?
equal "exit code" 1 $code
grep 'VMs run' refused.txt
untouched
system uninstall --force
equal "VMMs" "" "$(vmms)"
[ ! -e /usr/local/bin/banger ] && [ ! -e /run/banger ] && [ -d /var/lib/banger/s/vms ] || die "files"
! ip link show br-fc 2>/dev/null || die "the bridge is left"
/opt/new/banger system install --owner banger --limit 60s
equal "state" stopped "$(shown .state)"
banger vm start web
process=$(vmms) boot=$(shown .guest_boot_id)
untouched

say "purged: nothing is left"
/opt/new/banger system uninstall --purge --force
rm -r /opt/new /opt/bad
purged
