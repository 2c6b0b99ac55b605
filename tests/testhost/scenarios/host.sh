say "systemd runs all it was told to"
equal "state of the system" running "$(systemctl is-system-running)"

say "KVM works"
echo quit | qemu-system-x86_64 -M none -accel kvm -nodefaults -display none -monitor stdio

say "cgroup v2 limits and holds processes"
equal "the file system" cgroup2fs "$(stat -fc %T /sys/fs/cgroup)"
echo '+cpu +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
group=/sys/fs/cgroup/trial
mkdir $group
echo 67108864 > $group/memory.max
echo 5 > $group/pids.max
echo '50000 100000' > $group/cpu.max
equal memory.max 67108864 "$(cat $group/memory.max)"
sleep 1000 & sleeper=$!
echo $sleeper > $group/cgroup.procs
equal cgroup.procs $sleeper "$(cat $group/cgroup.procs)"
echo 1 > $group/cgroup.kill
wait $sleeper || true
until_true 10 rmdir $group

say "a device-mapper snapshot takes what is written, its base does not"
truncate -s 16M base; truncate -s 8M cow
base=$(losetup -f --show -r base); cow=$(losetup -f --show cow)
dmsetup create --noudevsync trial --table "0 $(blockdev --getsz "$base") snapshot $base $cow P 8"
until_true 10 test -b /dev/mapper/trial
before=$(dmsetup status trial)
head -c 1M /dev/urandom > written
dd if=written of=/dev/mapper/trial bs=1M conv=fsync status=none
cmp -n 1048576 written /dev/mapper/trial
cmp -n 1048576 /dev/zero base
[ "$before" != "$(dmsetup status trial)" ] || die "the snapshot's fill level does not move: $before"
dmsetup remove --noudevsync trial
losetup -d "$base" "$cow"
until_true 10 sh -c '! losetup -a | grep -q /var/tmp/'

say "XFS copies by reference"
cd /srv/xfs
head -c 32M /dev/urandom > one; sync
used() { df --output=used -k . | tail -n 1; }
before=$(used)
cp --reflink=always one two; sync
[ $(($(used) - before)) -lt 1024 ] || die "the copy took $(($(used) - before)) KiB"
cmp one two
cd /var/tmp

say "systemd-resolved asks a link's own server for the link's own domain"
ip link add br-trial type bridge
ip address add 10.99.0.1/24 dev br-trial
# A scope needs a port with carrier.
ip link add trial0 type veth peer name trial1
ip link set trial0 master br-trial
ip link set trial0 up; ip link set trial1 up; ip link set br-trial up
socat -u UDP-RECVFROM:5399,bind=127.0.0.1,fork OPEN:asked,creat,append &
until_true 10 sh -c 'ip -j link show br-trial | jq -e ".[0].operstate == \"UP\""'
resolvectl dns br-trial 127.0.0.1:5399
resolvectl domain br-trial '~vm'
resolvectl default-route br-trial no
resolvectl query web.vm > /dev/null 2>&1 & query=$!
until_true 20 grep -aq web asked
kill $query
wait $query || true
resolvectl query elsewhere.invalid > /dev/null 2>&1 || true
! grep -aq elsewhere asked || die "another domain was asked for at the link's server"
say "all is there"
