//! A PostgreSQL of its own, in a directory of its own, on a port of its own.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub struct Postgres {
    process: Option<Child>,
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
}

impl Postgres {
    /// None: it is not installed here.
    pub fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max()?;
        let directory = std::env::temp_dir().join(format!("patchbay-api-postgres-{}", std::process::id()));
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
        let mut initdb = server.program("initdb");
        let made = initdb
            .args(["-A", "trust", "-U", "voice", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        server.run();
        Some(server)
    }

    /// As nobody, because it does not run as root.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        if !std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
            return Command::new(path);
        }
        let owned = Command::new("chown")
            .args(["-R", "nobody"])
            .arg(&self.directory)
            .status();
        assert!(owned.unwrap().success());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--clear-groups"]).arg(path);
        command.current_dir(&self.directory);
        command
    }

    /// Waits until it takes connections.
    pub fn run(&mut self) {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.directory.join("data"));
        command.args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k", ""]);
        self.process = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let port = self.port.to_string();
        let mut ready = Command::new(self.programs.join("pg_isready"));
        ready.args(["-h", "127.0.0.1", "-p", &port]).stdout(Stdio::null());
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !ready.status().unwrap().success() {
            assert!(std::time::Instant::now() < limit, "PostgreSQL does not start");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGINT: "fast shutdown", which ends connections.
            let _ = Command::new("kill").args(["-INT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://voice@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
