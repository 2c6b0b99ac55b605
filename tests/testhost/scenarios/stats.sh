before=$(world)
stats() { banger vm stats --json web | jq -r ".[0].$1"; }
# at_least WHAT LEAST FOUND
at_least() { [ "$3" -ge "$2" ] || die "$1: at least $2 expected, $3 found"; }

say "a console is there for who asks for it, and only then"
banger vm run -d --name quiet
equal "a VM without" "" "$(banger vm logs quiet 2> why.txt)"
cat why.txt
grep -q 'quiet has no console: .* --console' why.txt
banger vm delete quiet
banger vm run -d --name web --console
banger vm logs web > console.txt
grep -q 'Linux version' console.txt

say "what the VM takes is counted by the kernel, what its guest does by Firecracker"
banger vm stats | tee table.txt
grep -Eq '^web +running +[0-9.]+% ' table.txt
at_least "memory" 20000000 "$(stats resident_bytes)"
at_least "CPU time" 100000 "$(stats cpu_us)"
at_least "disk" 1 "$(stats root_disk_bytes)"
read0=$(stats devices.disk_read_bytes)
at_least "read while booting" 100000 "$read0"
written0=$(stats devices.disk_written_bytes)
banger vm exec web -- sh -c 'head -c 8000000 /dev/urandom > /root/data; sync'
at_least "written" $((written0 + 8000000)) "$(stats devices.disk_written_bytes)"
at_least "said over vsock" 1 "$(stats devices.vsock_out_bytes)"
at_least "on the work disk" 8000000 "$(stats work_disk_bytes)"

say "a new daemon goes on counting where the old one was"
systemctl kill -s KILL bangerd
until_true 60 banger daemon status
at_least "read, as before" "$read0" "$(stats devices.disk_read_bytes)"
at_least "written, as before" $((written0 + 8000000)) "$(stats devices.disk_written_bytes)"

say "deleted, nothing is left"
banger vm delete web
nothing_left "$before"
