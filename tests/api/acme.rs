//! A certificate from an authority: a small one of the tests' own (RFC 8555), which checks signatures and asks at the port
//! itself whose name it is (RFC 8737).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName};

use crate::anyone::trusting_anyone;
use crate::client::LIMIT;
use crate::process::Process;

const NAMES: [&str; 2] = ["voice.example.com", "turn.example.com"];

struct Authority {
    address: SocketAddr,
    /// Where the names are.
    site: SocketAddr,
    issuer: Issuer<'static, KeyPair>,
    state: Mutex<Orders>,
    /// How many certificates there are.
    issued: watch::Sender<usize>,
}

#[derive(Default)]
struct Orders {
    accounts: usize,
    orders: usize,
    /// x and y of the account's key, and its thumbprint.
    key: Option<(Vec<u8>, String)>,
    valid: [bool; NAMES.len()],
    chain: Option<String>,
    /// The year in which the next one ends.
    until: i32,
    issued: Vec<CertificateDer<'static>>,
}

impl Authority {
    async fn start(site: SocketAddr) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["authority.example".to_owned()]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            site,
            issuer: Issuer::new(parameters, key),
            state: Mutex::default(),
            issued: watch::Sender::new(0),
        });
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&authority));
        tokio::spawn(async move { axum::serve(listener, app).await });
        authority
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.accounts, state.orders)
    }

    fn authorization(&self, index: usize, state: &Orders) -> Value {
        let status = if state.valid[index] { "valid" } else { "pending" };
        let challenge = json!({
            "type": "tls-alpn-01", "url": self.url(&format!("/challenge/{index}")), "token": token(index), "status": status,
        });
        json!({ "status": status, "identifier": { "type": "dns", "value": NAMES[index] }, "challenges": [challenge] })
    }

    fn order(&self, state: &Orders) -> Value {
        let status = match (&state.chain, state.valid.iter().all(|valid| *valid)) {
            (Some(_), _) => "valid",
            (None, true) => "ready",
            (None, false) => "pending",
        };
        let names: Vec<Value> = NAMES
            .iter()
            .map(|name| json!({ "type": "dns", "value": name }))
            .collect();
        let authorizations: Vec<String> = (0..NAMES.len())
            .map(|index| self.url(&format!("/authorization/{index}")))
            .collect();
        let mut order = json!({
            "status": status, "identifiers": names, "authorizations": authorizations, "finalize": self.url("/finalize"),
        });
        if state.chain.is_some() {
            order["certificate"] = self.url("/certificate").into();
        }
        order
    }

    /// RFC 8737 §3: who answers to the name shows the digest of what only the account's holder can make.
    async fn check(&self, index: usize, thumbprint: &str) -> bool {
        let Some(certificate) = shown(self.site, NAMES[index], &[b"acme-tls/1"]).await else {
            return false;
        };
        let proof = digest(&SHA256, format!("{}.{thumbprint}", token(index)).as_bytes());
        // The extension's value: an OCTET STRING of 32 bytes in another.
        let expected = [&[0x04, 0x22, 0x04, 0x20], proof.as_ref()].concat();
        let holds = |part: &[u8]| certificate.windows(part.len()).any(|window| window == part);
        holds(&expected) && holds(NAMES[index].as_bytes())
    }

    fn issue(&self, request: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let request = CertificateSigningRequestDer::from(request.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&request).expect("a request");
        assert_eq!(request.params.subject_alt_names.len(), NAMES.len());
        request.params.not_after = rcgen::date_time_ymd(state.until, 1, 1);
        let certificate = request.signed_by(&self.issuer).unwrap();
        state.chain = Some(certificate.pem());
        state.issued.push(certificate.der().clone());
    }
}

fn token(index: usize) -> String {
    format!("a-token-of-the-tests-{index}")
}

fn decode(text: &Value) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text.as_str().expect("a text")).expect("base64")
}

async fn answer(State(authority): State<Arc<Authority>>, uri: Uri, body: Bytes) -> Response {
    let nonce = [(header::HeaderName::from_static("replay-nonce"), "a-nonce")];
    if uri.path() == "/directory" {
        let paths = [
            ("newNonce", "/nonce"),
            ("newAccount", "/account"),
            ("newOrder", "/order"),
        ];
        let directory: serde_json::Map<String, Value> = paths
            .iter()
            .map(|(name, path)| ((*name).to_owned(), authority.url(path).into()))
            .collect();
        return Json(directory).into_response();
    }
    if uri.path() == "/nonce" {
        return (nonce, "").into_response();
    }
    let signed: Value = serde_json::from_slice(&body).expect("a signed request");
    let head: Value = serde_json::from_slice(&decode(&signed["protected"])).unwrap();
    assert_eq!(
        (head["url"].as_str(), head["nonce"].as_str()),
        (Some(authority.url(uri.path()).as_str()), Some("a-nonce"))
    );
    if let Some(key) = head["jwk"].as_object() {
        let thumbprint = json!({ "crv": key["crv"], "kty": key["kty"], "x": key["x"], "y": key["y"] });
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, thumbprint.to_string().as_bytes()));
        let point = [&[4], &decode(&key["x"])[..], &decode(&key["y"])].concat();
        authority.state.lock().unwrap().key = Some((point, thumbprint));
    }
    let (point, thumbprint) = authority.state.lock().unwrap().key.clone().expect("an account");
    let text = format!(
        "{}.{}",
        signed["protected"].as_str().unwrap(),
        signed["payload"].as_str().unwrap()
    );
    let verified =
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text.as_bytes(), &decode(&signed["signature"]));
    assert!(verified.is_ok(), "a request is signed by another");
    let payload: Value = serde_json::from_slice(&decode(&signed["payload"])).unwrap_or(Value::Null);

    let index: usize = uri
        .path()
        .rsplit('/')
        .next()
        .and_then(|last| last.parse().ok())
        .unwrap_or(0);
    if uri.path().starts_with("/challenge/") {
        let passed = authority.check(index, &thumbprint).await;
        authority.state.lock().unwrap().valid[index] = passed;
    }
    if uri.path() == "/finalize" {
        authority.issue(&decode(&payload["csr"]));
    }
    let mut state = authority.state.lock().unwrap();
    match uri.path() {
        "/account" => {
            state.accounts += 1;
            let location = [(header::LOCATION, authority.url("/accounts/1"))];
            (StatusCode::CREATED, nonce, location, Json(json!({ "status": "valid" }))).into_response()
        }
        "/order" => {
            assert_eq!(payload["identifiers"].as_array().map(Vec::len), Some(NAMES.len()));
            state.orders += 1;
            (state.valid, state.chain) = ([false; NAMES.len()], None);
            let location = [(header::LOCATION, authority.url("/orders/1"))];
            (StatusCode::CREATED, nonce, location, Json(authority.order(&state))).into_response()
        }
        "/certificate" => {
            authority.issued.send_replace(state.issued.len());
            (nonce, state.chain.clone().unwrap()).into_response()
        }
        path if path.starts_with("/authorization/") => {
            (nonce, Json(authority.authorization(index, &state))).into_response()
        }
        path if path.starts_with("/challenge/") => {
            let challenge = authority.authorization(index, &state)["challenges"][0].clone();
            (nonce, Json(challenge)).into_response()
        }
        _ => (nonce, Json(authority.order(&state))).into_response(),
    }
}

/// The certificate that is shown to who asks for this name and speaks these protocols. None: nobody is let in.
async fn shown(site: SocketAddr, name: &str, protocols: &[&[u8]]) -> Option<CertificateDer<'static>> {
    let stream = TcpStream::connect(site).await.ok()?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(trusting_anyone(protocols))
        .connect(name, stream)
        .await
        .ok()?;
    let (_, connection) = stream.get_ref();
    assert_eq!(connection.alpn_protocol(), protocols.first().copied());
    Some(connection.peer_certificates()?.first()?.clone().into_owned())
}

/// Waits until this is what everybody is shown.
async fn is_shown(site: SocketAddr, certificate: &CertificateDer<'static>) {
    let all = async {
        for name in NAMES {
            while shown(site, name, &[b"http/1.1"]).await.as_ref() != Some(certificate) {}
        }
    };
    tokio::time::timeout(LIMIT, all).await.expect("the new certificate");
}

fn settings(site: SocketAddr, directory: String) -> Value {
    json!({
        "rtc": { "single_port": site.port(), "node_ip": "127.0.0.1" },
        "tls": { "acme": { "domains": NAMES, "email": "admin@example.com", "directory": directory, "cache_dir": "acme" } },
    })
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_certificate_is_got_served_kept_and_renewed() {
    let site = free_port();
    let authority = Authority::start(site).await;
    // Nearly over by the time it comes: two thirds of the time since 1975.
    authority.state.lock().unwrap().until = 2040;
    let mut issued = authority.issued.subscribe();
    let mut server = Process::start(settings(site, authority.url("/directory"))).await;
    let mut certificate = async |number: usize| {
        let came = issued.wait_for(|count| *count == number);
        tokio::time::timeout(LIMIT, came).await.expect("a certificate").unwrap();
        authority.state.lock().unwrap().issued[number - 1].clone()
    };
    let first = certificate(1).await;
    is_shown(site, &first).await;
    assert_eq!(authority.counts(), (1, 1));
    // Nobody is asked to prove anything any more.
    assert_eq!(shown(site, NAMES[0], &[b"acme-tls/1"]).await, None);

    // The next life has it at once, and renews what is nearly over.
    server.kill().await;
    authority.state.lock().unwrap().until = 2400;
    server.run().await;
    let second = certificate(2).await;
    assert_ne!(first, second);
    is_shown(site, &second).await;
    assert_eq!(authority.counts(), (1, 2), "the account is kept");

    server.kill().await;
    server.run().await;
    assert_eq!(shown(site, NAMES[0], &[b"http/1.1"]).await, Some(second));
    assert_eq!(authority.counts(), (1, 2), "and a good certificate is");
}

#[tokio::test]
async fn without_an_authority_the_server_starts_all_the_same() {
    let site = free_port();
    let nobody = free_port();
    let _server = Process::start(settings(site, format!("http://{nobody}/directory"))).await;
    assert!(
        shown(site, NAMES[0], &[b"http/1.1"]).await.is_some(),
        "one of its own making"
    );
}

#[tokio::test]
async fn files_and_an_authority_are_one_too_many() {
    let mut both = settings(free_port(), "http://127.0.0.1:1/".to_owned());
    both["tls"]["cert_file"] = "cert.pem".into();
    both["tls"]["key_file"] = "key.pem".into();
    let said = Process::refused(both).await;
    assert!(said.contains("acme.domains"), "{said}");
}
