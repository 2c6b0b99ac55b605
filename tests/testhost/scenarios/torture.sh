# Daemon and helper are killed again and again under guests, while VMs are made, used and deleted.
rounds=${rounds:-3}
RANDOM=${seed:-$$}
before=$(world)
shown() { banger vm show still | jq -r "$1"; }
banger vm run --vmm "$vmm" -d --name still
boot=$(shown .guest_boot_id)
pid=$(shown .pid)
(banger vm exec still -- sh -c 'while [ ! -e /tmp/end ]; do sleep 1; done; echo whole' > inside.txt) & inside=$!

# Uses a VM of its own until the end; whatever fails, fails because nobody answers.
work() {
    local n=0
    until [ -e over ]; do
        case $((n++ % 5)) in
        0) banger vm run --vmm "$vmm" -d --nat --name "$1" ;;
        1) banger vm exec "$1" -- true ;;
        2) banger vm stop "$1" ;;
        3) banger vm start "$1" ;;
        4) banger vm delete "$1" ;;
        esac >/dev/null 2>&1 || true
    done
}
work w0 & one=$!
work w1 & two=$!

for round in $(seq "$rounds"); do
    sleep "$((RANDOM % 5)).$((RANDOM % 10))" # the moment is the test
    case $((RANDOM % 3)) in
    0) units="bangerd" ;;
    1) units="banger-helper" ;;
    2) units="bangerd banger-helper" ;;
    esac
    say "round $round: $units"
    # shellcheck disable=SC2086
    systemctl kill --signal=SIGKILL --kill-whom=main $units
    systemctl reset-failed # so many deaths at once are not what its limit is for
    until_true 60 systemctl is-active banger-helper
    until_true 60 banger daemon status
    equal "state" running "$(shown .state)"
    equal "pid" "$pid" "$(shown .pid)"
    equal "boot" "$boot" "$(shown .guest_boot_id)"
done
touch over
wait $one $two

say "every operation ends, and every VMM is a VM's"
ended() { banger ops list --json | jq -e 'all(.[]; .outcome != "running")'; }
until_true 90 ended
running=$(banger vm list --json | jq -r '.[] | select(.state == "running") | .name')
for name in $running; do banger vm show "$name" | jq -r .pid; done | sort > running.txt
equal "VMMs" "$(cat running.txt)" "$(vmms | sort)"

say "the command inside did not notice"
banger vm exec still -- touch /tmp/end
wait $inside
equal "what it said" whole "$(cat inside.txt)"
for name in $(banger vm list --json | jq -r '.[].name'); do banger vm delete "$name"; done
rm -f over inside.txt running.txt
nothing_left "$before"
say "$rounds rounds survived"
