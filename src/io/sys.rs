//! The system calls of the media threads: recvmmsg and sendmmsg with control messages, epoll, eventfd, affinity,
//! interface addresses. Everything `unsafe` in the crate is here; what is exported is safe to call.

#![allow(
    unsafe_code,
    reason = "batched datagram calls with control messages, epoll and affinity have no safe wrapper among the dependencies"
)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use super::interfaces::LocalAddress;

/// Sets an integer socket option.
pub(super) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads the four bytes of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    check(result as isize).map(|_| ())
}

/// -1 = the error is in errno.
fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A socket address in the kernel's form.
#[derive(Clone, Copy)]
#[repr(C)]
union RawAddress {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddress {
    fn zeroed() -> Self {
        // SAFETY: both members are plain integers, for which zero is a value.
        unsafe { mem::zeroed() }
    }

    fn new(address: SocketAddr) -> (Self, libc::socklen_t) {
        let mut raw = Self::zeroed();
        match address {
            SocketAddr::V4(v4) => {
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: in_addr(*v4.ip()),
                    sin_zero: [0; 8],
                };
                (raw, size_of::<libc::sockaddr_in>() as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                raw.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: in6_addr(*v6.ip()),
                    sin6_scope_id: v6.scope_id(),
                };
                (raw, size_of::<libc::sockaddr_in6>() as libc::socklen_t)
            }
        }
    }

    /// None for a family that is neither IPv4 nor IPv6.
    fn address(&self) -> Option<SocketAddr> {
        // SAFETY: the family is the first field of both members, and every bit pattern is a value of either.
        unsafe {
            match i32::from(self.v4.sin_family) {
                libc::AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(
                    Ipv4Addr::from(u32::from_be(self.v4.sin_addr.s_addr)),
                    u16::from_be(self.v4.sin_port),
                ))),
                libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(self.v6.sin6_addr.s6_addr),
                    u16::from_be(self.v6.sin6_port),
                    0,
                    self.v6.sin6_scope_id,
                ))),
                _ => None,
            }
        }
    }
}

fn in_addr(ip: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from(ip).to_be(),
    }
}

fn in6_addr(ip: Ipv6Addr) -> libc::in6_addr {
    libc::in6_addr { s6_addr: ip.octets() }
}

/// Room for the control messages of one message: IPV6_PKTINFO (40 bytes), UDP_GRO or UDP_SEGMENT (24) and a time stamp
/// (32), with some to spare. The alignment is that of `cmsghdr`.
const CONTROL_BYTES: usize = 128;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_BYTES],
}

impl Control {
    const EMPTY: Self = Self {
        bytes: [0; CONTROL_BYTES],
    };

    /// Appends one control message behind the first `used` bytes and returns the new length; leaves it out when it
    /// would not fit (which the sizes above exclude).
    fn append<T: Copy>(&mut self, used: usize, level: i32, kind: i32, value: T) -> usize {
        let size = size_of::<T>() as u32;
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, length, data) = unsafe { (libc::CMSG_SPACE(size), libc::CMSG_LEN(size), libc::CMSG_LEN(0)) };
        let end = used + space as usize;
        if end > CONTROL_BYTES {
            return used;
        }
        let header = libc::cmsghdr {
            cmsg_len: length as _,
            cmsg_level: level,
            cmsg_type: kind,
        };
        // SAFETY: `used..end` is inside the buffer, and header and value both fit in it; unaligned writes are used.
        unsafe {
            let base = self.bytes.as_mut_ptr().add(used);
            base.cast::<libc::cmsghdr>().write_unaligned(header);
            base.add(data as usize).cast::<T>().write_unaligned(value);
        }
        end
    }
}

/// What to send: `bytes[start..start + length]` of the arena, cut into datagrams of `segment` bytes when that is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing {
    pub(super) to: SocketAddr,
    /// The address to leave from; None = the one the socket is bound to.
    pub(super) from: Option<IpAddr>,
    pub(super) start: usize,
    pub(super) length: usize,
    pub(super) segment: Option<u16>,
}

/// Messages per sendmmsg call. The call itself costs about 100 ns, so more would gain nothing that can be measured.
pub(super) const SEND_MESSAGES: usize = 64;

/// The kernel's view of up to `SEND_MESSAGES` messages, kept so that sending allocates nothing.
pub(super) struct SendScratch {
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside are written and read only within one call of `send`; between calls they mean nothing.
unsafe impl Send for SendScratch {}

impl SendScratch {
    pub(super) fn new() -> Self {
        Self {
            headers: empty_headers(SEND_MESSAGES),
            vectors: empty_vectors(SEND_MESSAGES),
            names: vec![RawAddress::zeroed(); SEND_MESSAGES].into(),
            controls: vec![Control::EMPTY; SEND_MESSAGES].into(),
        }
    }

    /// Sends the first messages (at most `SEND_MESSAGES`) and returns how many the kernel took; an error concerns the
    /// first message. A message that does not lie inside `arena` ends the batch before it.
    pub(super) fn send(&mut self, fd: BorrowedFd<'_>, arena: &[u8], messages: &[Outgoing]) -> io::Result<usize> {
        let mut count = 0;
        for (index, message) in messages.iter().take(SEND_MESSAGES).enumerate() {
            let Some(bytes) = arena.get(message.start..message.start + message.length) else {
                break;
            };
            self.vectors[index] = libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            let (name, name_length) = RawAddress::new(message.to);
            self.names[index] = name;
            let control_length = write_control(&mut self.controls[index], message);

            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = name_length;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = if control_length == 0 {
                ptr::null_mut()
            } else {
                (&raw mut self.controls[index]).cast()
            };
            header.msg_controllen = control_length as _;
            count = index + 1;
        }
        if count == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the first `count` headers were filled above and point into this struct and into `arena`, which are
        // borrowed for the whole call; the kernel only reads through msg_iov.
        let result = unsafe { libc::sendmmsg(fd.as_raw_fd(), self.headers.as_mut_ptr(), count as u32, 0) };
        check(result as isize)
    }
}

fn write_control(control: &mut Control, message: &Outgoing) -> usize {
    let mut used = 0;
    match message.from {
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: in_addr(ip),
                ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
            };
            used = control.append(used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let scope = match message.to {
                SocketAddr::V6(to) => to.scope_id(),
                SocketAddr::V4(_) => 0,
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: in6_addr(ip),
                ipi6_ifindex: scope as _,
            };
            used = control.append(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    if let Some(segment) = message.segment {
        used = control.append(used, libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    used
}

fn empty_headers(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: all fields are integers and pointers, for which zero (null) is a value.
    let empty = || unsafe { mem::zeroed::<libc::mmsghdr>() };
    std::iter::repeat_with(empty).take(count).collect()
}

fn empty_vectors(count: usize) -> Box<[libc::iovec]> {
    let empty = || libc::iovec {
        iov_base: ptr::null_mut(),
        iov_len: 0,
    };
    std::iter::repeat_with(empty).take(count).collect()
}

/// Messages per recvmmsg call.
pub(super) const RECEIVE_MESSAGES: usize = 32;

/// Bytes of one message: what UDP can carry, since one message holds a whole GRO group.
const MESSAGE_BYTES: usize = 65_536;

/// Distance of two messages in the arena: not a power of two, so that their first lines fall into different cache sets.
const MESSAGE_STRIDE: usize = MESSAGE_BYTES + 192;

/// Where one recvmmsg call puts its messages; what is in it lives until the next call.
pub(super) struct ReceiveArena {
    bytes: Box<[u8]>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    names: Box<[RawAddress]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside are rewritten by every call of `receive` before the kernel sees them.
unsafe impl Send for ReceiveArena {}

/// One received message: a datagram, or several of one size behind each other.
pub(super) struct Incoming<'a> {
    pub(super) from: SocketAddr,
    /// The address it was sent to, when the socket reports it.
    pub(super) local: Option<Arrival>,
    /// Every datagram in `bytes` has this size, but the last may be shorter. Never 0.
    pub(super) segment: usize,
    /// When the kernel took it in, as time since 1970; of datagrams that came as one, the first's.
    pub(super) stamp: Option<Duration>,
    pub(super) bytes: &'a mut [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) ip: IpAddr,
    /// Index of the interface, which a link-local address needs to mean anything.
    pub(super) interface: u32,
}

impl ReceiveArena {
    pub(super) fn new() -> Self {
        Self {
            // Zeroed pages are mapped on first touch: small datagrams never make the whole arena resident.
            bytes: vec![0; RECEIVE_MESSAGES * MESSAGE_STRIDE].into(),
            headers: empty_headers(RECEIVE_MESSAGES),
            vectors: empty_vectors(RECEIVE_MESSAGES),
            names: vec![RawAddress::zeroed(); RECEIVE_MESSAGES].into(),
            controls: vec![Control::EMPTY; RECEIVE_MESSAGES].into(),
        }
    }

    /// Takes what waits in the socket, at most `RECEIVE_MESSAGES` messages; `WouldBlock` when nothing does.
    pub(super) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        for (index, chunk) in self.bytes.chunks_exact_mut(MESSAGE_STRIDE).enumerate() {
            self.vectors[index] = libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: MESSAGE_BYTES,
            };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<RawAddress>() as libc::socklen_t;
            header.msg_iov = &raw mut self.vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = CONTROL_BYTES as _;
            header.msg_flags = 0;
        }
        // SAFETY: every header points at its own part of this struct's buffers, with their true sizes, and the struct
        // is borrowed mutably for the whole call.
        let result = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                RECEIVE_MESSAGES as u32,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        check(result as isize)
    }

    /// Message `index` of the last call. None for an empty message, one that was cut off, or one without an IP source.
    pub(super) fn message(&mut self, index: usize) -> Option<Incoming<'_>> {
        let header = self.headers.get(index)?;
        let length = (header.msg_len as usize).min(MESSAGE_BYTES);
        if length == 0 || header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let from = self.names.get(index)?.address()?;
        let Marks { local, segment, stamp } = read_control(&header.msg_hdr);
        let start = index * MESSAGE_STRIDE;
        Some(Incoming {
            from,
            local,
            segment: segment.filter(|segment| *segment > 0).unwrap_or(length),
            stamp,
            bytes: self.bytes.get_mut(start..start + length)?,
        })
    }
}

/// What the kernel says beside the bytes of a message.
#[derive(Default)]
struct Marks {
    local: Option<Arrival>,
    /// GRO segment size.
    segment: Option<usize>,
    stamp: Option<Duration>,
}

fn read_control(header: &libc::msghdr) -> Marks {
    let mut marks = Marks::default();
    // SAFETY: msg_control and msg_controllen describe what the kernel wrote into this message's control buffer; the
    // CMSG functions stay inside it, and each payload is read unaligned with the type its level and kind define.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    marks.local = Some(Arrival {
                        ip: Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)).into(),
                        interface: info.ipi_ifindex as u32,
                    });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    marks.local = Some(Arrival {
                        ip: Ipv6Addr::from(info.ipi6_addr.s6_addr).into(),
                        interface: info.ipi6_ifindex as u32,
                    });
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    marks.segment = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let stamp = data.cast::<libc::timespec>().read_unaligned();
                    let seconds = u64::try_from(stamp.tv_sec).ok();
                    let nanos = u32::try_from(stamp.tv_nsec).ok().filter(|nanos| *nanos < 1_000_000_000);
                    marks.stamp = seconds.zip(nanos).map(|(seconds, nanos)| Duration::new(seconds, nanos));
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    marks
}

/// Waits until the socket takes data again, at most `timeout`.
pub(super) fn wait_writable(fd: BorrowedFd<'_>, timeout: Duration) {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd. Whatever it returns, the caller tries to send once more.
    unsafe { libc::poll(&raw mut poll, 1, timeout.as_millis() as i32) };
}

/// An eventfd: a counter that wakes an epoll.
pub(super) fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed; the result is a new descriptor that nothing else owns.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        check(fd as isize)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Adds one to an eventfd. A full counter (which wakes as well) is no error.
pub(super) fn signal_event(fd: BorrowedFd<'_>) {
    let one = 1u64;
    // SAFETY: the kernel reads eight bytes of `one`.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Sets an eventfd back to zero.
pub(super) fn clear_event(fd: BorrowedFd<'_>) {
    let mut value = 0u64;
    // SAFETY: the kernel writes eight bytes into `value`.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut value).cast(), 8) };
}

/// Most descriptors that one wait reports; the others are reported by the next.
const EPOLL_EVENTS: usize = 16;

/// A level-triggered epoll over descriptors that the caller keeps open.
pub(super) struct Epoll {
    fd: OwnedFd,
    /// epoll_pwait2 (Linux 5.11) waits in nanoseconds; without it timeouts are rounded up to milliseconds.
    fine: bool,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed; the result is a new descriptor that nothing else owns.
        unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            check(fd as isize)?;
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
                fine: true,
            })
        }
    }

    /// `token` is what `wait` reports when `fd` is readable.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, false)
    }

    /// Of a descriptor that was added: whether being writable is reported as well.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, writable)
    }

    fn control(&self, operation: i32, fd: BorrowedFd<'_>, token: u64, writable: bool) -> io::Result<()> {
        let events = libc::EPOLLIN | if writable { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: token,
        };
        // SAFETY: `event` is read during the call only.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event) };
        check(result as isize).map(|_| ())
    }

    /// Calls `ready` with the token of every readable descriptor, after at most `timeout` (None = for ever). A signal
    /// ends the wait with nothing ready.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, mut ready: impl FnMut(u64)) -> io::Result<()> {
        let mut events = [MaybeUninit::<libc::epoll_event>::uninit(); EPOLL_EVENTS];
        let count = match self.wait_into(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        for event in events.iter().take(count) {
            // SAFETY: the kernel has written the first `count` events.
            ready(unsafe { event.assume_init_read() }.u64);
        }
        Ok(())
    }

    fn wait_into(
        &mut self,
        events: &mut [MaybeUninit<libc::epoll_event>; EPOLL_EVENTS],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        if self.fine {
            let time = timeout.map(|timeout| libc::timespec {
                tv_sec: timeout.as_secs().min(3600) as libc::time_t,
                tv_nsec: timeout.subsec_nanos() as _,
            });
            let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: `events` has room for EPOLL_EVENTS entries, `time` is null or a timespec that outlives the call,
            // and no signal mask is given.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.fd.as_raw_fd(),
                    events.as_mut_ptr(),
                    EPOLL_EVENTS as i32,
                    time,
                    ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            match check(result as isize) {
                // Seccomp profiles that do not know the call answer EPERM.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => self.fine = false,
                other => return other,
            }
        }
        let millis = timeout.map_or(-1, |timeout| {
            timeout.as_nanos().div_ceil(1_000_000).min(3_600_000) as i32
        });
        // SAFETY: `events` has room for EPOLL_EVENTS entries.
        let result = unsafe {
            libc::epoll_wait(
                self.fd.as_raw_fd(),
                events.as_mut_ptr().cast(),
                EPOLL_EVENTS as i32,
                millis,
            )
        };
        check(result as isize)
    }
}

/// The processors this process may run on.
pub(super) fn allowed_cores() -> Vec<usize> {
    // SAFETY: a cpu_set_t is a bit array for which zero is a value; the kernel fills at most its size.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize)
            .filter(|core| libc::CPU_ISSET(*core, &set))
            .collect()
    }
}

/// Binds the calling thread to one processor.
pub(super) fn pin_to_core(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: `core` is inside the set, which the kernel only reads.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    check(result as isize).map(|_| ())
}

/// How late the calling thread may be woken from a timed wait. A kernel that refuses leaves the default.
pub(super) fn set_timer_slack(slack: Duration) {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack.as_nanos() as libc::c_ulong, 0, 0, 0) };
}

/// The addresses of all interfaces that are up (getifaddrs).
pub(super) fn interface_addresses() -> io::Result<Vec<LocalAddress>> {
    let mut found = Vec::new();
    // SAFETY: on success `list` is a linked list that stays valid until freeifaddrs, which is called once at the end;
    // names are NUL-terminated strings, and addresses are read with the type their family says.
    unsafe {
        let mut list: *mut libc::ifaddrs = ptr::null_mut();
        check(libc::getifaddrs(&raw mut list) as isize)?;
        let mut entry = list;
        while let Some(interface) = entry.as_ref() {
            entry = interface.ifa_next;
            if interface.ifa_flags & libc::IFF_UP as u32 == 0 || interface.ifa_addr.is_null() {
                continue;
            }
            let ip: IpAddr = match i32::from((*interface.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let address = interface.ifa_addr.cast::<libc::sockaddr_in>().read_unaligned();
                    Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)).into()
                }
                libc::AF_INET6 => {
                    let address = interface.ifa_addr.cast::<libc::sockaddr_in6>().read_unaligned();
                    Ipv6Addr::from(address.sin6_addr.s6_addr).into()
                }
                _ => continue,
            };
            let name = std::ffi::CStr::from_ptr(interface.ifa_name)
                .to_string_lossy()
                .into_owned();
            found.push(LocalAddress { interface: name, ip });
        }
        libc::freeifaddrs(list);
    }
    Ok(found)
}
