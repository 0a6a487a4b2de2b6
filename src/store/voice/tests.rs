use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::store::Database;

fn put(table: Table, id: &str, body: &str) -> Change {
    Change {
        table,
        id: id.into(),
        body: Some(body.into()),
    }
}

/// What every database does.
async fn keeps(store: &mut VoiceStore) {
    assert_eq!(store.load().await.unwrap(), []);
    let first = put(Table::Pins, "room", "{\"a\":1}");
    let region = put(Table::Regions, "us", "{}");
    store.write(vec![first, region.clone()]).await.unwrap();
    let second = put(Table::Pins, "room", "{\"a\":\"ä'\\\"\"}");
    store.write(vec![second.clone()]).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [second, region.clone()]);
    let removed = Change {
        body: None,
        ..put(Table::Pins, "room", "")
    };
    store.write(vec![removed.clone(), removed]).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [region]);
}

#[tokio::test]
async fn sqlite_keeps_what_it_is_told() {
    let database = SharedDatabase::new(Database::in_memory().unwrap());
    let mut store = VoiceStore::sqlite(database.clone()).unwrap();
    keeps(&mut store).await;
    // Opened again: the tables are there already.
    let mut again = VoiceStore::sqlite(database).unwrap();
    assert_eq!(again.load().await.unwrap().len(), 1);
}

/// A PostgreSQL of its own in a directory of its own.
struct Server {
    process: Option<Child>,
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
}

impl Server {
    /// None: PostgreSQL is not installed here.
    fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max()?;
        let directory = std::env::temp_dir().join(format!("patchbay-postgres-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self {
            process: None,
            programs: newest.join("bin"),
            directory,
            port,
        };
        let data = server.directory.join("data");
        let made = server
            .program("initdb")
            .args(["-A", "trust", "-U", "voice", "-D"])
            .arg(&data)
            .output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.run();
        Some(server)
    }

    /// As nobody, because it does not run as root.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
        if !is_root {
            return Command::new(path);
        }
        let owned = Command::new("chown")
            .args(["-R", "nobody"])
            .arg(&self.directory)
            .status();
        assert!(owned.unwrap().success());
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "nobody", "--clear-groups"])
            .arg(path)
            .current_dir(&self.directory);
        command
    }

    fn run(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.directory.join("data"));
        command.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGINT: "fast shutdown", which ends connections.
            let _ = Command::new("kill").args(["-INT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }

    fn url(&self) -> String {
        format!("postgres://voice@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

async fn ready(store: &mut VoiceStore) -> Vec<Change> {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match store.load().await {
            Ok(found) => return found,
            Err(error) if std::time::Instant::now() > limit => panic!("{error}"),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

#[tokio::test]
async fn postgresql_keeps_what_it_is_told_and_is_found_again_after_it_was_away() {
    let Some(mut server) = Server::start() else {
        let _ = writeln!(std::io::stderr(), "PostgreSQL is not installed: not tested");
        return;
    };
    let mut store = VoiceStore::postgres(&server.url()).unwrap();
    assert_eq!(ready(&mut store).await, []);
    keeps(&mut store).await;
    server.stop();
    let change = put(Table::Regions, "eu", "{}");
    assert!(store.write(vec![change.clone()]).await.is_err());
    server.run();
    assert_eq!(ready(&mut store).await.len(), 1);
    store.write(vec![change]).await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 2);
}

#[test]
fn a_bad_address_is_said_at_once() {
    assert!(VoiceStore::postgres("postgres://host:port/x").is_err());
}
