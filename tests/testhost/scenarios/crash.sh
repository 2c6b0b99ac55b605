before=$(world)
banger vm run --vmm $vmm -d --name web
shown() { banger vm show web | jq -r "$1"; }
boot=$(shown .guest_boot_id)
vmm=$(vmms)
daemon=$(systemctl show -P MainPID bangerd)
equal "pid" "$vmm" "$(shown .pid)"

say "the daemon is killed and started again"
systemctl kill --signal=SIGKILL --kill-whom=main bangerd
until_true 30 sh -c "[ \$(systemctl show -P MainPID bangerd) -gt 0 ] &&
    [ \$(systemctl show -P MainPID bangerd) != $daemon ]"
until_true 60 banger daemon status
equal "times that systemd started it again" 1 "$(systemctl show -P NRestarts bangerd)"

say "the VM was adopted"
equal "VMM" "$vmm" "$(vmms)"
equal "state" running "$(shown .state)"
equal "pid" "$vmm" "$(shown .pid)"
equal "boot" "$boot" "$(shown .guest_boot_id)"
now=$(banger vm exec web -- cat /proc/sys/kernel/random/boot_id)
equal "boot that the guest tells" "${boot//-/}" "${now//-/}"

say "and is still under control"
banger vm stop web
equal "VMMs" "" "$(vmms)"
banger vm delete web
nothing_left "$before"
