# A repository in a VM: what is the agent's and the lane's differs from one VMM to the other.
before=$(world)
# The account is a service's and has no home: whoever works has one.
home=/var/tmp/home
owner() {
    setpriv --reuid banger --regid banger --init-groups \
        env HOME=$home BANGER_SOCKET=/run/banger/bangerd.sock "$@"
}
banger() { owner /usr/local/bin/banger "$@"; }
repo=$home/repo
git() { owner git -C $repo -c user.name=Ann -c user.email=ann@example.org "$@"; }
inside() { banger vm exec --no-workspace web -- "$@"; }
sum() { sha256sum | cut -d' ' -f1; }

say "a repository, and a command in it"
install -d -o banger -g banger $home $repo
git init -q -b main
owner sh -c 'for n in $(seq 200); do d=$0/d$((n % 7)); [ -d "$d" ] || mkdir "$d"; echo $n > "$d/f $n"; done' $repo
owner sh -c 'head -c 3000000 /dev/urandom > "$0/noise"; ln -s noise "$0/link"; printf "#!/bin/sh\nexit 5\n" > "$0/run"; chmod +x "$0/run"; echo build > "$0/.gitignore"' $repo
git add -A
git commit -q -m all
code=0
banger vm run --vmm "$vmm" --name web $repo -- sh -c 'pwd; sha256sum < link; ./run' > out || code=$?
equal "exit code" 5 $code
equal "where it was, and what it read" "/root/repo $(sum < $repo/noise)" "$(cut -d' ' -f1 out | xargs)"
banger vm workspace status web

say "stale is told, and only what differs travels"
owner sh -c 'echo edited > "$0/d1/f 1"; rm "$0/d2/f 2"' $repo
banger vm exec web -- true 2> said
grep 'is stale (2 files modified\|is stale (1 file modified, 1 removed\|stale' said
banger vm exec web --auto-prepare -- sh -c 'cat "d1/f 1"; [ ! -e "d2/f 2" ]; mkdir build; echo x > build/out'
banger vm workspace prepare web $repo --json | tee prepared.json
[ "$(jq .sent_files prepared.json)" -le 3 ] || die "more was sent than has changed"
inside cat /root/repo/build/out

say "what the guest has done is kept, and comes back"
banger vm exec web -- sh -c 'echo "from the guest" > new; head -c 100000 /dev/urandom > noise2'
hash=$(banger vm exec web -- cat noise2 | sum)
banger vm workspace prepare web $repo 2> said && die "the guest's work was overwritten"
grep 'new: noise2' said
banger vm workspace export web --apply
equal "what came back" "from the guest $hash" "$(cat $repo/new) $(sum < $repo/noise2)"

say "bytes go through as they are"
head -c 8000000 /dev/urandom > bytes
chmod 644 bytes
equal "through stdin and stdout" "$(sum < bytes)" "$(banger vm exec -i web -- cat < bytes | sum)"
banger vm cp bytes web:/root/bytes
equal "copied in" "$(sum < bytes)" "$(inside sha256sum /root/bytes | cut -d' ' -f1)"
install -d -o banger here
banger vm cp web:/root/bytes here/bytes
cmp bytes here/bytes

say "stock OpenSSH"
banger ssh-config --install
config=$home/.ssh/config
equal "ssh" "web" "$(owner ssh -F $config web.vm hostname)"
owner scp -F $config -q web.vm:/root/bytes here/scp
cmp bytes here/scp
echo "get /root/bytes here/sftp" | owner sftp -F $config -q -b - web.vm > /dev/null
cmp bytes here/sftp
equal "git over ssh" "$(git rev-parse HEAD)" "$(inside cat /root/repo/.git/refs/heads/main)"
banger ssh-config --uninstall

say "a job in the background outlives its client"
job=$(banger vm exec web --detach -- sh -c 'echo begun; until [ -e /run/go ]; do sleep 0.1; done; echo done; exit 3')
inside touch /run/go
logged() { banger vm logs web --job "$job" 2>/dev/null | grep -qx done; }
until_true 30 logged
banger vm jobs web

say "suspended and resumed, it is still a workspace"
banger vm suspend web
banger vm resume web
equal "the edit" edited "$(banger vm exec web -- cat 'd1/f 1')"

say "killed in the middle of a transfer: the old tree, or the new one"
git add -A
git commit -q -m again
banger vm workspace prepare web $repo --discard-guest >/dev/null # it has come back
owner sh -c 'head -c 30000000 /dev/urandom > "$0/large"; echo after > "$0/d1/f 1"' $repo
banger vm workspace prepare web $repo --include-untracked > /dev/null 2> said &
arrives() { inside sh -c 'ls /root/repo/.git/banger/stage/* | grep -q .'; }
until_true 90 arrives
kill -9 "$(vmms)"
wait $! && die "it ended well without its guest"
cat said
crashed() { [ "$(banger vm show web | jq -r .state)" = crashed ]; }
until_true 30 crashed
banger vm start web
equal "the tree that was" "edited" "$(inside cat '/root/repo/d1/f 1')"
inside test ! -e /root/repo/large
banger vm workspace prepare web $repo --include-untracked
equal "the tree that is" "after $(sum < $repo/large)" "$(inside cat '/root/repo/d1/f 1') $(inside sha256sum /root/repo/large | cut -d' ' -f1)"

say "deleted, nothing is left"
banger vm delete web
rm -rf $home here
nothing_left "$before"
