# What a VM on Firecracker is on its host: nobody's business but its own.
before=$(world)
shown() { banger vm show "$1" | jq -r "$2"; }
crashed() { [ "$(shown "$1" .state)" = crashed ]; }
group_of() { echo "/sys/fs/cgroup/banger-$(id -u banger)/vm-$(shown "$1" .id)"; }
# field PID NAME
field() { sed -n "s/^$2:[[:space:]]*//p" "/proc/$1/status" | xargs; }

say "the doctor knows the jailer"
banger doctor | tee doctor.txt
grep -q 'vmm .*firecracker [0-9.]*.* (kvm:' doctor.txt

say "two VMs at once"
banger vm run -d --name one
banger vm run -d --name two

confined() {
    local name=$1 pid uid tap task group
    pid=$(shown "$name" .pid)
    tap=$(shown "$name" .tap)
    uid=$((1900000000 + ${tap#bgtap}))
    equal "$name: user of the range, by its tap" "$uid $uid $uid $uid" "$(field "$pid" Uid)"
    equal "$name: group" "$uid $uid $uid $uid" "$(field "$pid" Gid)"
    equal "$name: other groups" "" "$(field "$pid" Groups)"
    equal "$name: owner of its tap" "$uid" "$(ip -d -j link show "$tap" | jq -r '.[0].linkinfo.info_data.user')"
    for set in CapInh CapPrm CapEff CapAmb; do equal "$name: $set" 0000000000000000 "$(field "$pid" $set)"; done
    for task in /proc/"$pid"/task/*; do
        equal "$name: NoNewPrivs of $task" 1 "$(sed -n 's/^NoNewPrivs:\t//p' "$task/status")"
        equal "$name: Seccomp of $task" 2 "$(sed -n 's/^Seccomp:\t//p' "$task/status")"
    done
    [ "$(readlink "/proc/$pid/ns/mnt")" != "$(readlink /proc/self/ns/mnt)" ] || die "$name: mounts of the host"
    [ "$(stat -Lc %i "/proc/$pid/root/.")" != "$(stat -c %i /)" ] || die "$name: root of the host"
    equal "$name: all that it sees" "dev firecracker firecracker.pid initrd kernel memory-out run s state-out" \
        "$(ls "/proc/$pid/root" | grep -v '^d[0-9]$' | xargs)"
    for fd in /proc/"$pid"/fd/*; do
        case $(readlink "$fd") in
            /dev/null | /dev/kvm | /dev/net/tun | anon_inode:* | socket:* | */vmm.log | /s/* | /d[0-3]) ;;
            */run/banger/*/s/* | */vms/* | */images/*) ;; # the same files by their names on the host
            *) die "$name: has open $(readlink "$fd")" ;;
        esac
    done
    group=$(group_of "$name")
    equal "$name: its cgroup" "0::${group#/sys/fs/cgroup}" "$(cat "/proc/$pid/cgroup")"
    equal "$name: CPU" "200000 100000" "$(cat "$group/cpu.max")"
    equal "$name: tasks" 17 "$(cat "$group/pids.max")"
    equal "$name: memory" $(((256 + 16 + 128) << 20)) "$(cat "$group/memory.max")"
    [ "$(cat "$group/memory.current")" -gt $((16 << 20)) ] || die "$name: its memory is not counted there"
    may() { setpriv --reuid "$1" --regid "$2" --clear-groups test -w "/run/banger/$(shown "$name" '.id[:12]')/s/fc.sock"; }
    may banger banger || die "$name: the owner does not reach its API"
    ! may nobody nogroup || die "$name: anybody reaches its API"
}
confined one
confined two
[ "$(shown one .tap)" != "$(shown two .tap)" ] || die "one tap for two"
equal "mounts of jails on the host" "" "$(grep banger-root/jail /proc/self/mountinfo || true)"

say "daemon and helper are killed, and find both again"
pids=$(vmms | sort)
systemctl kill --signal=SIGKILL --kill-whom=main bangerd banger-helper
until_true 60 banger daemon status
equal "VMMs" "$pids" "$(vmms | sort)"
equal "states" "running running" "$(shown one .state) $(shown two .state)"
banger vm exec one -- true

say "one is killed; the other does not notice"
kill -9 "$(shown one .pid)"
until_true 20 crashed one
group=$(group_of one)
until_true 20 test ! -e "$group"
equal "hostname of the other" two "$(banger vm exec two -- hostname)"
banger vm start one
confined one

say "commands and shells need no network"
ip link set br-fc down
equal "hostname" two "$(banger vm exec two -- hostname)"
(banger vm exec two -- sh -c 'echo first; sleep 3' > first.txt) & first=$!
equal "a second command at the same time" two "$(banger vm exec two -- hostname)"
wait $first
equal "the first one" first "$(cat first.txt)"
equal "hostname by a shell" two "$(echo hostname | banger vm ssh two)"
ip link set br-fc up

say "what starts a guest is not what stops it: both go as they came"
banger vm stop one
banger vm delete one two
nothing_left "$before"
equal "jails left" "" "$(ls /run/banger-root/jail)"
