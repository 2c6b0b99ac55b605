say "the state directory moves to a file system that shares blocks"
state=/var/lib/banger/s
systemctl stop bangerd banger-helper
truncate -s 3G xfs.img
mkfs.xfs -q -m reflink=1 xfs.img
mkdir xfs
mount -o loop xfs.img xfs
cp -a --sparse=always $state/. xfs/
umount xfs
mount -o loop xfs.img $state
systemctl start banger-helper bangerd
until_true 30 banger daemon status
before=$(world)
used() { sync -f $state; df --output=used -k $state | tail -n 1; }

say "doctor says how disks are made"
banger doctor | tee doctor.txt
grep -q 'disks .*reflink' doctor.txt

say "an image has something in /root"
mkdir -p home/root/src home/bin home/etc
cp "$(command -v busybox)" home/bin/busybox
for name in $(busybox --list | grep -vx busybox); do ln -s busybox home/bin/$name; done
echo "root:x:0:0::/root:/bin/sh" > home/etc/passwd
echo "export FROM=image" > home/root/.profile
head -c 30000000 /dev/urandom > home/root/src/data
chmod 700 home/root
tar -C home --owner 0 --group 0 -cf home.tar .
banger image import home "$PWD/home.tar"
data=$(sha256sum < home/root/src/data)

say "a new VM takes less than a MiB"
banger vm create --no-start --image home --name first # makes the work disk's seed of that size, once
full=$(used)
banger vm create --no-start --image home --name web
took=$(($(used) - full))
say "it took $took KiB"
[ $took -lt 1024 ] || die "$took KiB for a VM"
equal "its back end" reflink "$(banger vm show web | jq -r .disk.backend)"
banger vm show web | jq .disk
banger vm delete first

say "it boots, and its root is as large as it was asked to be"
banger vm start web
inside() { banger vm exec web -- sh -ec "$1"; }
size=$(inside "df -k / | tail -n 1 | awk '{print \$2}'")
say "/ has $size KiB"
[ "$size" -gt 950000 ] || die "/ has $size KiB"
equal "what the image has in /root" "$data" "$(inside 'sha256sum < /root/src/data')"
equal "its profile, and whose /root is" "export FROM=image 0 700" "$(inside 'cat /root/.profile; stat -c "%u %a" /root' | xargs)"
size=$(inside "df -k /root | tail -n 1 | awk '{print \$2}'")
[ "$size" -gt 950000 ] || die "/root has $size KiB"
! banger vm create --no-start --image home --work-disk-size 16M --name small 2> small.txt || die "30 MB on 16"
grep -q -- '--work-disk-size' small.txt
[ $(($(used) - full)) -lt 16384 ] || die "booting it wrote $(($(used) - full)) KiB"
inside 'dd if=/dev/urandom of=/data bs=1M count=200 2>/dev/null; sha256sum /data > /sum; sync'
equal "its root carries containers" carries "$(carries_containers)"

say "what was written is there after a stop, and after a kill"
banger vm stop web
banger vm start web
inside 'sha256sum -c /sum; echo more > /more; sync'
equal "checks of disks that were left clean" 0 "$(checks)"
banger vm kill web
banger vm start web
[ "$(checks)" = 2 ] || die "of a killed guest's disks $(checks) were checked"
equal "what was synced" more "$(inside 'sha256sum -c /sum >/dev/null; cat /more')"

say "an overlay can still be had by name"
banger vm run --rm --disk overlay -- sh -c 'df / | tail -n 1' | grep overlay
banger vm delete web
banger image delete home
nothing_left "$before"
