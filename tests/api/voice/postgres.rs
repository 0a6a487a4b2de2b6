//! A PostgreSQL of its own, in a directory of its own, on a port of its own. Also used by the unit tests of the store.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Postgres {
    process: Option<Child>,
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    encrypted: bool,
}

impl Postgres {
    /// None: it is not installed here.
    pub fn start() -> Option<Self> {
        let mut server = Self::prepare()?;
        server.run();
        Some(server)
    }

    /// One that takes nothing but TLS, with a certificate for `localhost` that `authority` has signed.
    #[allow(dead_code, reason = "the other tests that use this file have no need of it")]
    pub fn start_encrypted() -> Option<Self> {
        let mut server = Self::prepare()?;
        let (certificate, key) = (server.certificate(), server.directory.join("key.pem"));
        let file = |name: &str| server.directory.join(name);
        std::fs::write(file("names"), "subjectAltName=DNS:localhost").unwrap();
        let openssl = |arguments: &str, files: &[(&str, PathBuf)]| {
            let mut command = Command::new("openssl");
            command.args(arguments.split(' '));
            for (option, path) in files {
                command.arg(option).arg(path);
            }
            command.output()
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        let (authority, request) = (server.authority(), file("request.pem"));
        let steps = [
            (
                format!("req -x509 {new} -days 2 -subj /CN=authority"),
                vec![("-keyout", file("authority.key")), ("-out", authority.clone())],
            ),
            (
                format!("req {new} -subj /CN=localhost"),
                vec![("-keyout", key.clone()), ("-out", request.clone())],
            ),
            (
                "x509 -req -days 2 -set_serial 1".to_owned(),
                vec![
                    ("-in", request),
                    ("-CA", authority),
                    ("-CAkey", file("authority.key")),
                    ("-extfile", file("names")),
                    ("-out", certificate),
                ],
            ),
        ];
        for (arguments, files) in steps {
            let made = openssl(&arguments, &files).ok()?;
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        let rules = "hostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n";
        std::fs::write(server.directory.join("data/pg_hba.conf"), rules).unwrap();
        server.encrypted = true;
        server.run();
        Some(server)
    }

    fn prepare() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let newest = versions.filter_map(Result::ok).map(|entry| entry.path()).max()?;
        let directory = std::env::temp_dir().join(format!("patchbay-postgres-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self {
            process: None,
            programs: newest.join("bin"),
            directory,
            port,
            encrypted: false,
        };
        let mut initdb = server.program("initdb");
        let data = server.directory.join("data");
        let made = initdb.args(["-A", "trust", "-U", "voice", "-D"]).arg(&data).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
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
        command.args(["-p", &self.port.to_string(), "-h", "localhost", "-k", ""]);
        if self.encrypted {
            let file = |name: &str, path: PathBuf| format!("{name}={}", path.display());
            let certificate = file("ssl_cert_file", self.certificate());
            let key = file("ssl_key_file", self.directory.join("key.pem"));
            command.args(["-c", "ssl=on", "-c", &certificate, "-c", &key]);
        }
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        self.process = Some(process);
        let ready = said.by_ref().any(|line| line.contains("ready to accept connections"));
        assert!(ready, "PostgreSQL does not start");
        // Whatever else it says must not stop it.
        std::thread::spawn(move || said.for_each(drop));
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGINT: "fast shutdown", which ends connections.
            let _ = Command::new("kill").args(["-INT", &process.id().to_string()]).status();
            let _ = process.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://voice@localhost:{}/postgres", self.port)
    }

    fn certificate(&self) -> PathBuf {
        self.directory.join("certificate.pem")
    }

    /// The file of the authority that has signed the certificate.
    #[allow(dead_code, reason = "the other tests that use this file have no need of it")]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("authority.pem")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
