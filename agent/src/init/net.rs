//! The network, by the classic socket ioctls: one address and one default route need no netlink.
//! The interface is chosen by its MAC address, for its name depends on the order of devices.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Instant;

use banger_agent::contract::config::NetConfig;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::boot::DEVICE_WAIT;
use super::identity::replace_file;
use crate::error::{AgentError, Context as _, Result};

pub(super) fn loopback_up() -> Result<()> {
    let socket = control_socket()?;
    up(&socket, "lo").context(|| "bring lo up".into())
}

pub(super) fn configure(net: &NetConfig) -> Result<()> {
    let name = wait_for_interface(&net.mac)?;
    bring_up(&control_socket()?, &name, net)
}

/// The one interface that is a device takes this guest's MAC address: in a copy of another
/// guest's memory it still has that one's.
pub(super) fn adopt(net: &NetConfig) -> Result<()> {
    let name = device_interface()
        .ok_or_else(|| AgentError::Missing("no network interface that is a device".into()))?;
    let socket = control_socket()?;
    set_mac(&socket, &name, net.mac)
        .context(|| format!("set address {} of {name}", mac_text(&net.mac)))?;
    bring_up(&socket, &name, net)
}

fn bring_up(socket: &OwnedFd, name: &str, net: &NetConfig) -> Result<()> {
    let mask = netmask(net.prefix_len);
    set_address(socket, name, libc::SIOCSIFADDR, net.address)
        .context(|| format!("set address {} on {name}", net.address))?;
    set_address(socket, name, libc::SIOCSIFNETMASK, mask)
        .context(|| format!("set netmask {mask} on {name}"))?;
    up(socket, name).context(|| format!("bring {name} up"))?;
    add_default_route(socket, net.gateway).context(|| format!("add route by {}", net.gateway))?;
    let resolv = resolv_conf(net);
    if !resolv.is_empty() {
        replace_file(Path::new("/etc/resolv.conf"), &resolv)
            .context(|| "write /etc/resolv.conf".into())?;
    }
    Ok(())
}

fn wait_for_interface(mac: &[u8; 6]) -> Result<String> {
    let start = Instant::now();
    loop {
        if let Some(name) = interface_with(mac) {
            return Ok(name);
        }
        if start.elapsed() > DEVICE_WAIT {
            return Err(AgentError::Missing(format!(
                "no network interface with address {}",
                mac_text(mac)
            )));
        }
        let _ = poll(&mut [], PollTimeout::from(5_u8));
    }
}

fn interface_with(mac: &[u8; 6]) -> Option<String> {
    let wanted = mac_text(mac);
    fs::read_dir("/sys/class/net").ok()?.filter_map(std::result::Result::ok).find_map(|entry| {
        let address = fs::read_to_string(entry.path().join("address")).ok()?;
        (address.trim() == wanted).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

/// Loopback and what the image's programs make have no device.
fn device_interface() -> Option<String> {
    let entries = fs::read_dir("/sys/class/net").ok()?.filter_map(std::result::Result::ok);
    let mut devices = entries.filter(|entry| entry.path().join("device").exists());
    devices.next().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn mac_text(mac: &[u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn netmask(prefix_len: u8) -> Ipv4Addr {
    let host_bits = 32_u32.saturating_sub(u32::from(prefix_len));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

fn resolv_conf(net: &NetConfig) -> String {
    let mut text = String::new();
    for server in &net.dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    if let Some(search) = &net.search {
        let _ = writeln!(text, "search {search}");
    }
    text
}

fn control_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .context(|| "open a socket for the network".into())
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: an all-zero ifreq is a valid value of this plain C structure.
    #[allow(unsafe_code, reason = "C structures are zeroed")]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain C structures of 16 bytes, made to be cast into each other.
    #[allow(unsafe_code, reason = "the socket API casts its address types")]
    unsafe {
        std::mem::transmute(inet)
    }
}

fn set_address(
    socket: &OwnedFd,
    name: &str,
    what: libc::c_ulong,
    address: Ipv4Addr,
) -> nix::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_addr = sockaddr(address);
    ioctl(socket, what, &raw mut request)
}

fn set_mac(socket: &OwnedFd, name: &str, mac: [u8; 6]) -> nix::Result<()> {
    let mut request = request(name);
    // SAFETY: an all-zero sockaddr is a valid value of this plain C structure.
    #[allow(unsafe_code, reason = "C structures are zeroed")]
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::ARPHRD_ETHER;
    for (slot, byte) in address.sa_data.iter_mut().zip(mac) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_hwaddr = address;
    ioctl(socket, libc::SIOCSIFHWADDR, &raw mut request)
}

fn up(socket: &OwnedFd, name: &str) -> nix::Result<()> {
    let mut request = request(name);
    ioctl(socket, libc::SIOCGIFFLAGS, &raw mut request)?;
    let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
    #[allow(unsafe_code, reason = "reads a C union")]
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | up;
    ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request)
}

fn add_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> nix::Result<()> {
    // SAFETY: an all-zero rtentry is a valid value of this plain C structure.
    #[allow(unsafe_code, reason = "C structures are zeroed")]
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_genmask = sockaddr(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = sockaddr(gateway);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    match ioctl(socket, libc::SIOCADDRT, &raw mut route) {
        Err(Errno::EEXIST) => Ok(()),
        done => done,
    }
}

fn ioctl<T>(socket: &OwnedFd, what: libc::c_ulong, argument: *mut T) -> nix::Result<()> {
    // SAFETY: the descriptor is open, and each caller passes the structure its request takes.
    #[allow(unsafe_code, reason = "an ioctl")]
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), what, argument) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(200), Ipv4Addr::BROADCAST);
    }

    #[test]
    fn resolv_conf_has_a_line_per_server() {
        let net = NetConfig {
            mac: [2, 0xab, 0, 0, 0, 5],
            address: Ipv4Addr::new(172, 16, 0, 2),
            prefix_len: 24,
            gateway: Ipv4Addr::new(172, 16, 0, 1),
            dns: vec![Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(9, 9, 9, 9)],
            search: Some("vm".into()),
        };
        assert_eq!(resolv_conf(&net), "nameserver 1.1.1.1\nnameserver 9.9.9.9\nsearch vm\n");
        assert_eq!(mac_text(&net.mac), "02:ab:00:00:00:05");
    }
}
