//! One UDP socket of a shard: bound, sized, and asked for what the kernel can batch.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use super::sys::{self, Arrival};

/// Kernel buffer asked for in each direction: at 500,000 packets of 1,100 bytes a second, about 15 ms.
const BUFFER_BYTES: usize = 8 << 20;

/// What the kernel lacks was said: once, not for every socket.
static IS_SAID: AtomicBool = AtomicBool::new(false);

/// What the kernel may do for several datagrams at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// UDP_SEGMENT: one send for many datagrams of one size.
    pub gso: bool,
    /// UDP_GRO: one message for many datagrams of one flow.
    pub gro: bool,
}

impl Offload {
    pub const ALL: Self = Self { gso: true, gro: true };
    /// One message per datagram, as on kernels before 4.18.
    pub const NONE: Self = Self { gso: false, gro: false };
}

/// A bound socket. IPv4 and IPv6 are separate sockets; an IPv6 socket takes no IPv4.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    /// Bound to all addresses: the local address comes and goes with each datagram.
    wildcard: bool,
    /// What the kernel grants of the offload that was asked for.
    pub(super) offload: Offload,
}

impl UdpSocket {
    /// Binds `address`; port 0 lets the kernel choose. Takes of `wanted` what the kernel has.
    ///
    /// # Errors
    /// What `bind` says: address in use, not local, no permission.
    pub fn bind(address: SocketAddr, wanted: Offload) -> io::Result<Self> {
        Self::open(address, wanted, |_| Ok(()))
    }

    /// As `bind`, on a port that other sockets of this process have too: the kernel gives each flow to one of them.
    ///
    /// # Errors
    /// As `bind`.
    pub fn bind_shared(address: SocketAddr, wanted: Offload) -> io::Result<Self> {
        Self::open(address, wanted, |socket| {
            sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
        })
    }

    fn open(address: SocketAddr, wanted: Offload, prepare: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        size_buffers(&socket);
        prepare(&socket)?;
        socket.bind(&address.into())?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let wildcard = local.ip().is_unspecified();
        if wildcard {
            let (level, name) = match local {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_PKTINFO),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            };
            sys::set_option(socket.as_fd(), level, name, 1)?;
        }
        // Without it the time at which the thread looks has to do.
        let _ = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1);
        let offload = Offload {
            // A segment size of 0 changes nothing; only a kernel that knows the option accepts it.
            gso: wanted.gso && sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok(),
            gro: wanted.gro && sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok(),
        };
        if offload != wanted && !IS_SAID.swap(true, Ordering::Relaxed) {
            tracing::warn!(%local, ?offload, "this kernel does not batch UDP; each datagram costs a full pass of the stack");
        }
        Ok(Self {
            socket,
            local,
            wildcard,
            offload,
        })
    }

    /// The bound address, with the port the kernel chose.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends one datagram, or says `WouldBlock`.
    ///
    /// # Errors
    /// What `sendto` says.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.send_to(datagram, &to.into())
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Where a datagram arrived: the address it was sent to, and this socket's port.
    pub(super) fn arrival(&self, reported: Option<Arrival>) -> SocketAddr {
        match reported {
            Some(Arrival {
                ip: IpAddr::V6(ip),
                interface,
            }) if self.wildcard => {
                let scope = if ip.is_unicast_link_local() { interface } else { 0 };
                SocketAddr::V6(SocketAddrV6::new(ip, self.local.port(), 0, scope))
            }
            Some(Arrival { ip, .. }) if self.wildcard => SocketAddr::new(ip, self.local.port()),
            _ => self.local,
        }
    }

    /// True when datagrams can leave from `from` through this socket.
    pub(super) fn serves(&self, from: SocketAddr) -> bool {
        self.local.port() == from.port()
            && self.local.is_ipv4() == from.is_ipv4()
            && (self.wildcard || self.local.ip() == from.ip())
    }

    /// The source address that a send must name; None where the binding says it already.
    pub(super) fn source(&self, from: SocketAddr) -> Option<IpAddr> {
        (self.wildcard && !from.ip().is_unspecified()).then(|| from.ip())
    }
}

/// For event loops of others; shards have their own.
impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The forced form passes the system's limit but needs CAP_NET_ADMIN; without it the limit is all that can be had.
fn size_buffers(socket: &Socket) {
    let size = BUFFER_BYTES as i32;
    if sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
        let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    }
    if sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size).is_err() {
        let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    }
}
