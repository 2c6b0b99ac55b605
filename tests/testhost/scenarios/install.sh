# Installs banger from /opt/banger as its user would: programs, a user, units; then kernel and image.
set -euo pipefail
from=/opt/banger
install -m 0755 $from/banger $from/bangerd $from/banger-helper /usr/local/bin/
install -d /usr/local/lib/banger
install -m 0755 $from/banger-agent /usr/local/lib/banger/
vmms="--vmm /usr/bin/qemu-system-x86_64"
if [ -e $from/firecracker ]; then
    install -m 0755 $from/firecracker $from/jailer /usr/local/bin/
    vmms="$vmms --vmm /usr/local/bin/firecracker --jailer /usr/local/bin/jailer"
fi

# The daemon looks whether /dev/kvm opens, so its user needs the group as much as the VMMs do.
useradd --system --home-dir /var/lib/banger --shell /usr/sbin/nologin -G kvm banger
install -d -m 0711 /var/lib/banger /var/log/banger
install -d -m 0700 -o banger -g banger /var/lib/banger/s

cat > /etc/banger.toml <<'EOF'
state_dir = "/var/lib/banger/s"
run_dir = "/run/banger"
socket = "/run/banger/bangerd.sock"
helper_socket = "/run/banger-root/helper.sock"
agent_bin = "/usr/local/lib/banger/banger-agent"
default_image_name = "tiny"
[vm_defaults]
vcpu = 1
memory_mib = 256
disk_size = "1G"
work_disk_size = "1G"
[network]
bridge = "br-fc"
tap_prefix = "bgtap"
cidr = "172.30.5.0/24"
dns_listen = "127.0.0.1:42069"
EOF

# VMs live on when either of them ends or is started anew.
cat > /etc/systemd/system/banger-helper.service <<EOF
[Service]
RuntimeDirectory=banger-root
RuntimeDirectoryMode=0711
RuntimeDirectoryPreserve=yes
ExecStart=/usr/local/bin/banger-helper --owner $(id -u banger) --state-dir /var/lib/banger/s \\
    --subnet 172.30.5.0/24 $vmms
KillMode=process
Restart=on-failure
RestartSec=100ms
[Install]
WantedBy=multi-user.target
EOF
cat > /etc/systemd/system/bangerd.service <<'EOF'
[Unit]
After=banger-helper.service
[Service]
User=banger
Environment=HOME=/var/lib/banger/s
RuntimeDirectory=banger
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
ExecStart=/usr/local/bin/bangerd --config /etc/banger.toml
KillMode=process
Restart=on-failure
RestartSec=100ms
[Install]
WantedBy=multi-user.target
EOF
systemctl daemon-reload
systemctl enable --quiet --now banger-helper bangerd

export BANGER_SOCKET=/run/banger/bangerd.sock
end=$((SECONDS + 60))
until banger daemon status >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { banger daemon status; exit 1; }
    sleep 0.1
done
echo "the daemon answers at ${SECONDS} s"
banger kernel import debian $from/kernel.deb
echo "kernel imported at ${SECONDS} s"
banger image import tiny $from/tiny.tar
echo "image imported at ${SECONDS} s"
rm -r $from
