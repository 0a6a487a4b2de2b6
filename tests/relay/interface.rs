//! A network of its own behind this process: two TUN devices, one where the process was started, one in a new network
//! namespace, and nothing between them but who reads and writes both.
//!
//! Both end with their files, and the namespace with the last process in it: nothing stays behind, however this one ends.

#![allow(unsafe_code)] // two system calls that the standard library does not know

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd,
    process::Command,
};

/// RFC 2544's network for benchmarks: in use nowhere. The third number is chosen by process, so that two can run at a time.
fn addresses() -> (String, String) {
    let id = std::process::id() % 65_536;
    let net = format!("198.{}.{}", 18 + id / 256 % 2, id % 256);
    (format!("{net}.1"), format!("{net}.2"))
}

pub struct Pair {
    /// The device beside whoever started this process; IPv4 and IPv6 packets, one a read or write.
    pub here: File,
    /// The one in the new namespace, where this process is afterwards too.
    pub there: File,
    pub here_address: String,
    pub there_address: String,
}

/// Makes both devices, up and routed, and moves the calling thread into the new namespace.
pub fn open_pair() -> Result<Pair, String> {
    let (here_address, there_address) = addresses();
    let here_name = format!("pb{}", std::process::id());
    let here =
        open_tun(&here_name).map_err(|error| format!("cannot make a network device, which needs root: {error}"))?;
    bring_up(&here_name, &here_address, &there_address)?;
    // SAFETY: takes no pointer; changes which network this thread sees.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(format!(
            "cannot make a network namespace: {}",
            io::Error::last_os_error()
        ));
    }
    let there = open_tun("link0").map_err(|error| format!("cannot make a network device in the namespace: {error}"))?;
    bring_up("link0", &there_address, &here_address)?;
    ip(&["link", "set", "lo", "up"])?;
    // Browsers gather candidates where the default route leads.
    ip(&["route", "add", "default", "via", &here_address, "dev", "link0"])?;
    Ok(Pair {
        here,
        there,
        here_address,
        there_address,
    })
}

fn open_tun(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid ifreq (integers, and unions of them).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq, which outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

fn bring_up(device: &str, own: &str, other: &str) -> Result<(), String> {
    ip(&["address", "add", own, "peer", other, "dev", device])?;
    ip(&["link", "set", device, "up"])
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(arguments).output();
    let done = done.map_err(|error| format!("cannot run `ip` (Debian: iproute2): {error}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!(
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&done.stderr).trim()
    ))
}
