before=$(world)

say "doctor finds nothing wrong"
banger doctor | tee doctor.txt
grep -q 'vmm .*(kvm:' doctor.txt

say "a run brings back output and exit code"
code=0
banger vm run --vmm $vmm --rm -- sh -c 'uname -r; exit 7' > out.txt || code=$?
equal "exit code" 7 $code
grep 'cloud-amd64$' out.txt
nothing_left "$before"

say "a VM in the background, with KVM"
equal "its name" web "$(banger vm run --vmm $vmm -d --name web)"
banger vm show web | jq -r .vmm | grep "^$vmm [^ ]* (kvm:"
user=$(stat -c %U "/proc/$(vmms)")
case $vmm in
    qemu) equal "the VMM's user" banger "$user" ;;
    firecracker) equal "the VMM's user, of which no other process is" UNKNOWN "$user" ;;
esac

say "its name is known to the whole host"
resolvectl dns br-fc 127.0.0.1:42069
resolvectl domain br-fc '~vm'
resolvectl default-route br-fc no
ping -c 1 -W 5 web.vm

say "a command needs no network"
ip link set br-fc down
equal "hostname by the lane" web "$(banger vm exec web -- hostname)"
ip link set br-fc up

say "several commands run at once"
meet='touch /run/at.$0; until [ -e /run/at.1 -a -e /run/at.2 -a -e /run/at.3 ]; do sleep 0.1; done; echo $0'
for n in 1 2 3; do banger vm exec web -- sh -c "$meet" $n < /dev/null > met.$n & done
wait
equal "who met" "1 2 3" "$(cat met.? | xargs)"

say "a shell goes by SSH"
equal "hostname by SSH" web "$(echo hostname | banger vm ssh web)"

say "deleted, nothing is left"
resolvectl revert br-fc
banger vm delete web
nothing_left "$before"
