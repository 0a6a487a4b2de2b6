use tokio::net::TcpListener;

use super::*;

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("patchbay-acme-{name}-{}", std::process::id()))
}

fn acme(folder: &Path, directory: String, domains: &[&str]) -> Acme {
    let config = AcmeConfig {
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        directory,
        cache_dir: folder.display().to_string(),
        ..AcmeConfig::default()
    };
    Acme::new(&config).unwrap().unwrap()
}

#[tokio::test]
async fn an_authority_that_does_not_answer_is_asked_again() {
    let folder = folder("silent");
    let authority = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = format!("http://{}/directory", authority.local_addr().unwrap());
    let mut acme = acme(&folder, directory, &["example.com"]);
    acme.first_retry = Duration::from_millis(1);
    let tls = acme.tls().unwrap();
    assert_eq!(tls.chain_length(), 1, "there is something to serve meanwhile");
    let (stopping, stopped) = watch::channel(false);
    let keeping = tokio::spawn(acme.keep(tls, stopped));
    for _ in 0..5 {
        drop(authority.accept().await.unwrap());
    }
    stopping.send(true).unwrap();
    keeping.await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn other_names_and_other_authorities_are_other_files() {
    let folder = folder("names");
    let of = |directory: &str, domains: &[&str]| acme(&folder, directory.to_owned(), domains);
    let first = of("https://a.example/", &["a.com", "b.com"]);
    assert_eq!(
        first.certificate,
        of("https://a.example/", &["B.com", "a.com", "a.com"]).certificate
    );
    assert_ne!(first.certificate, of("https://a.example/", &["a.com"]).certificate);
    let other = of("https://b.example/", &["a.com", "b.com"]);
    assert!(first.certificate != other.certificate && first.account != other.account);
    assert!(Acme::new(&AcmeConfig::default()).unwrap().is_none());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_kept_is_for_this_process_only_and_is_read_again() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("kept");
    let acme = acme(&folder, "https://a.example/".to_owned(), &["example.com"]);
    assert_eq!(acme.time_left(), None);
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(acme.domains.clone()).unwrap();
    // Two thirds of this time were over in 2018.
    parameters.not_before = rcgen::date_time_ymd(1975, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2040, 1, 1);
    for (year, is_due) in [(2040, true), (2400, false)] {
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        write_private(
            &acme.certificate,
            format!("{}{}", key.serialize_pem(), certificate.pem()).as_bytes(),
        )
        .unwrap();
        assert_eq!(acme.time_left().unwrap().is_zero(), is_due, "until {year}");
        assert_eq!(acme.tls().unwrap().chain_length(), 1);
    }
    let mode = std::fs::metadata(&acme.certificate).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_dir_all(&folder).unwrap();
}
