//! A TCP port that serves several things: each gets to where it belongs, however its bytes come; nothing else gets a byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use anyone::trusting_anyone;

use super::relay::{Framed, World, call, check};
use super::*;

#[path = "../../../tests/api/anyone.rs"]
mod anyone;

/// A certificate of its own in a folder of its own.
pub(super) struct Files {
    folder: PathBuf,
    pub(super) files: CertificateFiles,
}

impl Files {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("patchbay-door-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files = CertificateFiles {
            certificate: folder.join("fullchain.pem"),
            key: folder.join("privkey.pem"),
        };
        let own = Self { folder, files };
        own.renew();
        own
    }

    fn renew(&self) {
        let made = dimpl::certificate::generate_self_signed_certificate().unwrap();
        write_pem(&self.files.certificate, "CERTIFICATE", &made.certificate);
        write_pem(&self.files.key, "PRIVATE KEY", &made.private_key);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn write_pem(path: &Path, label: &str, der: &[u8]) {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"));
    std::fs::write(path, text).unwrap();
}

type Secure<S> = StreamOwned<ClientConnection, S>;

/// A TLS client on `stream`, which asks for `name` and offers `protocol`.
fn secure<S: Read + Write>(stream: S, name: &str, protocol: Option<&[u8]>) -> Secure<S> {
    let config = trusting_anyone(protocol.as_slice());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream)
}

/// Sends a byte at a time, each in a segment of its own.
struct Trickle(TcpStream);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Trickle {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes.get(..1).unwrap_or_default())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A door and those behind it; HTTP is answered with one line that says whether it came under TLS.
struct House {
    world: World,
    address: SocketAddr,
    stopping: tokio::sync::watch::Sender<bool>,
}

impl House {
    async fn with(cover: Cover) -> Self {
        let world = World::shared().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stopping, stopped) = tokio::sync::watch::channel(false);
        let (web, mut connections) = mpsc::channel(WEB_QUEUE);
        let guests = Guests {
            media: world.shards.iter().map(|(shard, _)| shard.clone()).collect(),
            turn: Some(world.shards[0].0.clone()),
            web: Some(web),
        };
        let door = Door {
            listener,
            cover,
            guests,
        };
        tokio::spawn(door.serve(stopped));
        tokio::spawn(async move {
            while let Some(mut connection) = connections.recv().await {
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(connection.stream.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(request).unwrap();
                    let answer = format!("secure={} {}\n", connection.is_secure, head.lines().next().unwrap());
                    connection.stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = connection.stream.shutdown().await;
                });
            }
        });
        Self {
            world,
            address,
            stopping,
        }
    }

    /// Runs what blocks. `here` connects to the door.
    async fn visit<T: Send + 'static>(&self, visit: impl FnOnce(&dyn Fn() -> TcpStream) -> T + Send + 'static) -> T {
        let address = self.address;
        let here = move || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        };
        tokio::task::spawn_blocking(move || visit(&here)).await.unwrap()
    }

    fn close(self) {
        drop(self.stopping);
        self.world.stop();
    }
}

const REQUEST: &[u8] = b"GET /rtc HTTP/1.1\r\nHost: here\r\n\r\n";

fn ask_web(mut stream: impl Read + Write) -> String {
    stream.write_all(REQUEST).unwrap();
    stream.flush().unwrap();
    let mut answer = String::new();
    // One that closes without close_notify has said everything all the same.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Sends a check and two packets in frames, and has them echoed.
fn ask_media(mut stream: impl Read + Write) {
    for message in [check("abcd:efgh"), vec![0x80; 1200], vec![20; 3]] {
        let frame = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
        stream.write_all(&frame).unwrap();
        let mut echo = vec![0; frame.len()];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, frame);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn turn_under_tls() {
    let files = Files::new();
    let tls = Tls::from_files(&files.files.certificate, &files.files.key).unwrap();
    let house = House::with(Cover::Tls(tls)).await;
    let media = house.world.media.clone();
    house
        .visit(move |here| {
            for protocol in [None, Some(&b"stun.turn"[..])] {
                call(
                    &mut Framed(secure(here(), "turn.example.com", protocol)),
                    &media,
                    20,
                    true,
                );
            }
            call(
                &mut Framed(secure(Trickle(here()), "turn.example.com", None)),
                &media,
                2,
                true,
            );
            // Without TLS, or after the handshake with nonsense: closed. Only a handshake or its alert is ever sent.
            for nonsense in [
                &[0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42][..],
                &[0x16, 3, 1, 0, 4, 9, 9, 9, 9],
            ] {
                let mut stream = here();
                stream.write_all(nonsense).unwrap();
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said);
                assert!(said.is_empty() || said[0] == 0x15, "{said:02x?}");
            }
            let mut stream = secure(here(), "turn.example.com", None);
            stream.write_all(&[0xff; 100]).unwrap();
            assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
        })
        .await;
    let counters = house.world.shards[0].0.counters();
    assert_eq!(counters.streams_opened, 3);
    house.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_for_everything() {
    let files = Files::new();
    let tls = Tls::new(files.files.clone(), &[]).unwrap();
    let house = House::with(Cover::Either(tls)).await;
    let media = house.world.media.clone();
    house
        .visit(move |here| {
            let open = "secure=false GET /rtc HTTP/1.1\n";
            assert_eq!(ask_web(here()), open);
            assert_eq!(ask_web(Trickle(here())), open);
            let closed = "secure=true GET /rtc HTTP/1.1\n";
            assert_eq!(ask_web(secure(here(), "example.com", Some(b"http/1.1"))), closed);
            assert_eq!(ask_web(secure(here(), "example.com", None)), closed);
            assert_eq!(ask_web(secure(Trickle(here()), "example.com", None)), closed);
            ask_media(here());
            ask_media(Trickle(here()));
            call(&mut Framed(here()), &media, 3, true);
            call(&mut Framed(secure(here(), "example.com", None)), &media, 3, true);
            // Somebody else's protocol, and one we do not have under TLS: not a byte.
            for nonsense in [&b"SSH-2.0-x\r\n"[..], &[0x80; 12], &[0, 20, 0, 1, 0, 0, 9, 9, 9, 9]] {
                let mut stream = here();
                stream.write_all(nonsense).unwrap();
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said);
                assert_eq!(said, b"");
            }
            let mut other = secure(here(), "example.com", Some(b"smtp"));
            assert!(other.write_all(REQUEST).and_then(|()| other.read(&mut [0; 1])).is_err());
        })
        .await;
    house.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_udp_port_for_media_and_turn() {
    let world = World::shared().await;
    let mut socket = client("127.0.0.1:0");
    socket.connect(world.turn).unwrap();
    call(&mut socket, &world.media, 5, false);
    // From the same socket: media, by what it is.
    for message in [check("abcd:efgh"), vec![0x80; 1000], vec![22; 50]] {
        socket.send(&message).unwrap();
        let mut echo = [0; 1500];
        let length = socket.recv(&mut echo).unwrap();
        assert_eq!(echo[..length], message);
    }
    // A STUN client's question is answered with its address.
    let question = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat();
    socket.send(&question).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!((&answer[..2], length), (&[1, 1][..], 32));
    let home = world.shards[0].0.clone();
    world.stop();
    assert_eq!(home.counters().relayed_in, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_has_its_certificate_and_new_ones_are_taken() {
    let (site, turn) = (Files::new(), Files::new());
    let others = [("turn.example.com".to_owned(), turn.files.clone())];
    let tls = Tls::new(site.files.clone(), &others).unwrap();
    let house = House::with(Cover::Either(tls.clone())).await;
    let shown = async |name: &'static str| {
        let shown = house.visit(move |here| {
            let mut stream = secure(here(), name, None);
            stream.write_all(REQUEST).unwrap();
            stream.conn.peer_certificates().unwrap()[0].to_vec()
        });
        shown.await
    };
    let (for_site, for_turn) = (shown("example.com").await, shown("TURN.example.com").await);
    assert_ne!(for_site, for_turn);
    site.renew();
    assert_eq!(shown("example.com").await, for_site);
    tls.reload().unwrap();
    assert_ne!(shown("example.com").await, for_site);
    assert_eq!(shown("turn.example.com").await, for_turn);
    // Half written: what was there stays.
    std::fs::write(&turn.files.certificate, "-----BEGIN").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(shown("turn.example.com").await, for_turn);
    house.close();
}

/// Ten thousand connections that say nothing, or begin and stop: an honest one gets in at any time, and the descriptors they
/// hold are bounded.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_connections() {
    let files = Files::new();
    let tls = Tls::new(files.files.clone(), &[]).unwrap();
    let house = House::with(Cover::Either(tls)).await;
    let address = house.address;
    let most = house
        .visit(move |here| {
            let beginnings: [&[u8]; 6] = [&[], &[0], &[0x16, 3], b"GET", &[0, 3, 0, 8, 0x21], &[0, 0x58, 0, 1]];
            let mut most = 0;
            // Those that the door has sent away are closed here too, so that the test's own descriptors suffice.
            let mut held = std::collections::VecDeque::new();
            for index in 0..10_000 {
                let mut stream = TcpStream::connect(address).unwrap();
                let _ = stream.write_all(beginnings[index % beginnings.len()]);
                held.push_back(stream);
                if held.len() > 1000 {
                    held.pop_front();
                }
                if index % 1000 == 999 {
                    assert_eq!(ask_web(here()), "secure=false GET /rtc HTTP/1.1\n");
                    ask_media(here());
                    most = most.max(connections_to(address.port()));
                }
            }
            most
        })
        .await;
    assert!(most > 0 && most < 600, "{most} connections are held");
    house.close();
}

/// The server's ends of connections to a port of this machine that are open now.
fn connections_to(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut fields = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields
        .by_ref()
        .filter(|fields| fields[1].ends_with(&local) && fields[3] == ESTABLISHED)
        .count()
}
