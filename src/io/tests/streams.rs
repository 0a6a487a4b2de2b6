//! A TCP client on a slow link: pictures make way for everything else before they grow old.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::io::streams::Streams;
use crate::io::sys::Epoll;

const PICTURE: [u8; 1200] = [0x80; 1200];
const VOICE: [u8; 120] = [0x80; 120];

struct Link {
    streams: Streams,
    epoll: Epoll,
    path: NetPath,
    client: TcpStream,
    now: Instant,
}

impl Link {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, remote) = listener.accept().unwrap();
        let path = NetPath {
            local: socket.local_addr().unwrap(),
            remote,
            protocol: NetProtocol::Tcp,
        };
        let (mut streams, epoll, now) = (Streams::default(), Epoll::new().unwrap(), Instant::now());
        let adopted = AdoptedStream {
            socket,
            tls: None,
            framing: Framing::Media,
            received: Vec::new(),
        };
        streams.adopt(now, &epoll, adopted).unwrap();
        Self {
            streams,
            epoll,
            path,
            client,
            now,
        }
    }

    /// Whether the packet was taken; then `wait` passes.
    fn send(&mut self, packet: &[u8], wait: Duration) -> bool {
        let taken = self.streams.send(self.path, packet);
        self.streams.flush(self.now, &self.epoll);
        self.now += wait;
        taken
    }

    /// Until the kernel takes no more.
    fn fill(&mut self) {
        while self.send(&PICTURE, Duration::ZERO) {}
        self.drain();
        while self.send(&PICTURE, Duration::ZERO) {}
    }

    /// The client reads everything there is.
    fn drain(&mut self) {
        self.client.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1 << 16];
        for _ in 0..1000 {
            while matches!(self.client.read(&mut buffer), Ok(count) if count > 0) {}
            let mut tokens = Vec::new();
            self.epoll
                .wait(Some(Duration::from_millis(20)), |token| tokens.push(token))
                .unwrap();
            for token in tokens {
                self.streams.mark_ready(token);
            }
            self.streams.flush(self.now, &self.epoll);
            if self.streams.waiting(self.path) == 0 {
                return;
            }
        }
        panic!("the queue does not empty");
    }
}

#[test]
fn a_full_queue_takes_no_pictures_but_everything_else() {
    let mut link = Link::new();
    link.fill();
    let held = link.streams.waiting(link.path);
    assert!((60 << 10..=64 << 10).contains(&held), "{held} bytes");
    assert!(link.send(&VOICE, Duration::ZERO));
    // A DTLS record may be as long as a picture's packet.
    assert!(link.send(&[22; 1200], Duration::ZERO));
    // A client that reads nothing at all is not written for without end.
    while link.send(&VOICE, Duration::ZERO) {}
    assert!(link.streams.waiting(link.path) <= 256 << 10);
    link.drain();
    assert!(link.send(&PICTURE, Duration::ZERO));
}

#[test]
fn an_old_queue_takes_no_pictures_however_short_it_is() {
    let mut link = Link::new();
    link.fill();
    link.drain();
    // Fill the kernel only: what is over stands in the queue.
    while link.streams.waiting(link.path) == 0 {
        assert!(link.send(&PICTURE, Duration::ZERO));
    }
    let step = Duration::from_millis(20);
    let taken = (0..100).take_while(|_| link.send(&PICTURE, step)).count();
    assert!((12..=14).contains(&taken), "{taken} packets in 20 ms each");
    assert!(link.streams.waiting(link.path) < 20_000);
    assert!(
        link.send(&VOICE, step),
        "a voice is small and late is better than never"
    );
    link.drain();
    assert!(link.send(&PICTURE, step));
}
