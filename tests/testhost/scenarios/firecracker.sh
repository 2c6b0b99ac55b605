before=$(world)
shown() { banger vm show web | jq -r "$1"; }
crashed() { [ "$(shown .state)" = crashed ]; }

say "where Firecracker is installed and KVM works, it is chosen"
banger doctor | tee doctor.txt
grep -q 'vmm .*firecracker [0-9.]*.* (kvm:' doctor.txt

say "a run brings back output and exit code"
code=0
banger vm run --rm -- sh -c 'uname -r; exit 7' > out.txt || code=$?
equal "exit code" 7 $code
grep 'cloud-amd64$' out.txt
nothing_left "$before"

say "what was written last is there after a stop"
banger vm run -d --name web
shown .vmm | grep '^firecracker '
equal "the VMM" firecracker "$(cat "/proc/$(vmms)/comm")"
for round in $(seq "${rounds:-3}"); do
    banger vm exec web -- sh -c 'head -c 1000000 /dev/urandom | tee /data > /root/data'
    sums=$(banger vm exec web -- sha256sum /data /root/data)
    banger vm stop web
    equal "VMMs in round $round" "" "$(vmms)"
    banger vm start web
    equal "what was written in round $round" "$sums" "$(banger vm exec web -- sha256sum /data /root/data)"
done

say "a VMM that was killed is seen, and is started anew"
kill -9 "$(vmms)"
until_true 20 crashed
shown '.last_exit.how'
banger vm start web
equal "what was written" "$sums" "$(banger vm exec web -- sha256sum /data /root/data)"

say "the other VMM works beside it"
banger vm run --rm --vmm qemu -- uname -r

say "deleted, nothing is left"
banger vm delete web
nothing_left "$before"
