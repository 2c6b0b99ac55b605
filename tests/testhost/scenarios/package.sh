# The Debian package: installed, its owner chosen, upgraded under a VM that runs, removed and purged.
older=$(ls /opt/files/banger_*.deb | sort -V | head -n 1)
newer=$(ls /opt/files/banger_*.deb | sort -V | tail -n 1)
banger() {
    setpriv --reuid banger --regid banger --init-groups env HOME=/var/lib/banger \
        BANGER_SOCKET=/run/banger/bangerd.sock /usr/bin/banger "$@"
}
shown() { banger vm show web | jq -r "$1"; }
status() { dpkg-query -W -f '${Status}, ${Version}' banger 2>/dev/null; }
version() { dpkg-deb -f "$1" Version; }

say "installed, it says the one thing that is left to do"
dpkg -i "$older" | tee told.txt
grep -q 'banger system install --owner USER' told.txt
equal "status" "install ok installed, $(version "$older")" "$(status)"
! systemctl cat bangerd 2>/dev/null || die "somebody was chosen"
mkdir /etc/banger
cat > /etc/banger/config.toml <<'CONFIG'
state_dir = "/var/lib/banger/s"
default_image_name = "tiny"
[vm_defaults]
vcpu = 1
memory_mib = 256
disk_size = "1G"
work_disk_size = "1G"
CONFIG
/usr/bin/banger system install --owner banger --limit 60s
equal "prefix" /usr "$(sed -n 's/^prefix = "\(.*\)"/\1/p' /etc/banger/install.toml)"
[ ! -e /usr/local/bin/banger ]
/usr/bin/banger system status
banger kernel import debian /opt/files/linux-image-*.deb
banger image import tiny /opt/files/tiny.tar

say "a VM"
banger vm run --vmm "$vmm" -d --name web
banger vm exec web -- sh -c 'echo kept > /root/kept'
boot=$(shown .guest_boot_id)
process=$(vmms)
untouched() {
    equal "VMM" "$process" "$(vmms)"
    equal "state" running "$(shown .state)"
    equal "boot" "${boot//-/}" "$(banger vm exec web -- cat /proc/sys/kernel/random/boot_id | tr -d -)"
}

say "upgraded, and a command in it does not notice"
(banger vm exec web -- sh -c 'sleep 8; cat /proc/sys/kernel/random/boot_id' > through.txt) & through=$!
both
dpkg -i "$newer"
both_anew
equal "status" "install ok installed, $(version "$newer")" "$(status)"
equal "program" /usr/lib/banger/bangerd "$(readlink "/proc/$(unit bangerd MainPID)/exe")"
untouched
wait $through
equal "boot that the command saw" "${boot//-/}" "$(tr -d - < through.txt)"
equal "what dpkg finds changed" "" "$(dpkg -V banger)"
/usr/bin/banger system status > /dev/null

say "it is its package's to replace"
mkdir /opt/other
cp /usr/bin/banger /usr/lib/banger/* /opt/other
echo >> /opt/other/bangerd
! /usr/bin/banger system upgrade --from /opt/other 2> refused.txt || die "replaced"
grep "are a package's" refused.txt
rm -r /opt/other
untouched

say "not removed while VMs run"
! dpkg -r banger > refused.txt 2>&1 || die "removed"
cat refused.txt
grep -q 'VMs run' refused.txt
untouched
/usr/bin/banger system status > /dev/null

say "removed, VMs stay"
banger vm stop web
dpkg -r banger
[ ! -e /usr/bin/banger ] && [ ! -e /usr/lib/banger ] && [ ! -e /run/banger ] && [ -d /var/lib/banger/s/vms ] || die "files"
! systemctl cat bangerd 2>/dev/null || die "a unit is left"
! ip link show br-fc 2>/dev/null || die "the bridge is left"
equal "status" "deinstall ok config-files, $(version "$newer")" "$(status)"

say "installed again, they are there"
dpkg -i "$newer"
/usr/bin/banger system install --owner banger --limit 60s
equal "state" stopped "$(shown .state)"
banger vm start web
equal "what was written" kept "$(banger vm exec web -- cat /root/kept)"
banger vm stop web

say "purged, nothing is left"
dpkg -P banger
equal "status" "" "$(status || true)"
purged
