# Installs banger from /opt/banger as its user would; then a kernel and an image.
set -euo pipefail
from=/opt/banger
if [ -e $from/firecracker ]; then
    install -m 0755 $from/firecracker $from/jailer /usr/local/bin/
fi
install -d /etc/banger
cat > /etc/banger/config.toml <<'CONFIG'
state_dir = "/var/lib/banger/s"
default_image_name = "tiny"
[vm_defaults]
vcpu = 1
memory_mib = 256
disk_size = "1G"
work_disk_size = "1G"
[network]
cidr = "172.30.5.0/24"
CONFIG
$from/banger system install --owner banger --limit 60s || { journalctl -u bangerd -u banger-helper | tail -n 40; exit 1; }
echo "installed at ${SECONDS} s"
banger kernel import debian $from/kernel.deb
echo "kernel imported at ${SECONDS} s"
banger image import tiny $from/tiny.tar
echo "image imported at ${SECONDS} s"
rm -r $from
