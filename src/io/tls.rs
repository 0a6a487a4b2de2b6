//! Certificates for TLS on the server's own ports: HTTPS and TURN.
//!
//! Owns what has been read from the files; a new certificate in the same files is taken by `reload`, for connections from
//! then on. And the certificates that prove to an authority whose names these are, for as long as it asks.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// RFC 7301 and RFC 7443. A client that offers others only is refused by rustls, one that offers none is served; of several
/// the first here is taken. TURN before HTTP: coturn's client offers every one of them, browsers never offer TURN.
const PROTOCOLS: [&[u8]; 3] = [STUN_TURN, b"stun.nat-discovery", HTTP_1_1];
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";
pub(super) const STUN_TURN: &[u8] = b"stun.turn";
/// RFC 8737 §4: an authority that checks whose name this is.
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}: {1}")]
    File(String, rustls::pki_types::pem::Error),
    #[error("certificate and key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Where a certificate is, in PEM: the chain, leaf first, and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Certificates to serve TLS with. Clones share them.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(super) config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

/// One for everybody, others for those who ask for a name (SNI).
#[derive(Debug)]
struct Certificates {
    provider: Arc<CryptoProvider>,
    known: Vec<Known>,
    challenges: RwLock<Challenges>,
}

/// By name, lower case; no more than the configuration has names.
type Challenges = Vec<(String, Arc<CertifiedKey>)>;

#[derive(Debug)]
struct Known {
    /// Lower case; None = whoever asks for no other.
    name: Option<String>,
    files: CertificateFiles,
    key: RwLock<Arc<CertifiedKey>>,
}

impl Tls {
    /// One certificate, whatever name is asked for.
    ///
    /// # Errors
    /// When a file cannot be read or the two do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = CertificateFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        Self::new(files, &[])
    }

    /// `others`: by the name a client asks for.
    ///
    /// # Errors
    /// When a file cannot be read or two do not belong together.
    pub fn new(files: CertificateFiles, others: &[(String, CertificateFiles)]) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let others = others
            .iter()
            .map(|(name, files)| (Some(name.to_lowercase()), files.clone()));
        let known = others
            .chain([(None, files)])
            .map(|(name, files)| {
                let key = RwLock::new(Arc::new(read(&files, &provider)?));
                Ok(Known { name, files, key })
            })
            .collect::<Result<Vec<_>, TlsError>>()?;
        Self::of(provider, known)
    }

    /// One certificate, which is not there yet: `reload` takes it from its files once it is, and until then `chain` and `key`
    /// are shown.
    ///
    /// # Errors
    /// When the two do not belong together.
    pub fn expecting(
        files: CertificateFiles,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = RwLock::new(Arc::new(CertifiedKey::from_der(chain, key, &provider)?));
        let known = Known { name: None, files, key };
        Self::of(provider, vec![known])
    }

    fn of(provider: Arc<CryptoProvider>, known: Vec<Known>) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates {
            provider: Arc::clone(&provider),
            known,
            challenges: RwLock::default(),
        });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self {
            config: Arc::new(config),
            certificates,
        })
    }

    /// Authorities are answered, too.
    pub fn with_challenges(mut self) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols.push(ACME_TLS.to_vec());
        self.config = Arc::new(config);
        self
    }

    /// What an authority is shown that checks `name`.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn add_challenge(
        &self,
        name: &str,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), TlsError> {
        // Not compared: the extension that makes it a challenge is critical, and nobody's verifier knows it.
        let key = self.certificates.provider.key_provider.load_private_key(key)?;
        let key = CertifiedKey::new(chain, key);
        self.challenges().push((name.to_lowercase(), Arc::new(key)));
        Ok(())
    }

    pub fn clear_challenges(&self) {
        self.challenges().clear();
    }

    fn challenges(&self) -> RwLockWriteGuard<'_, Challenges> {
        let challenges = self.certificates.challenges.write();
        challenges.unwrap_or_else(PoisonError::into_inner)
    }

    /// Every file, to be watched.
    pub fn files(&self) -> Vec<PathBuf> {
        let known = self.certificates.known.iter();
        known
            .flat_map(|known| [known.files.certificate.clone(), known.files.key.clone()])
            .collect()
    }

    /// Reads the files again. What cannot be used, as a file in the middle of being written, leaves everything as it was.
    ///
    /// # Errors
    /// As for `new`.
    pub fn reload(&self) -> Result<(), TlsError> {
        let certificates = &self.certificates;
        let fresh = certificates
            .known
            .iter()
            .map(|known| read(&known.files, &certificates.provider))
            .collect::<Result<Vec<_>, _>>()?;
        for (known, fresh) in certificates.known.iter().zip(fresh) {
            *known.key.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        Ok(())
    }

    /// Certificates in the chain; a root that clients have need not be among them.
    pub fn chain_length(&self) -> usize {
        self.certificates.find(None).map_or(0, |key| key.cert.len())
    }
}

impl Certificates {
    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let named = |known: &&Known| known.name.as_deref().is_some_and(|own| name == Some(own));
        let found = self.known.iter().find(named).or(self.known.last())?;
        Some(Arc::clone(&found.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_lowercase);
        // RFC 8737 §3: it speaks that and nothing else.
        let mut protocols = hello.alpn().into_iter().flatten();
        if protocols.next() == Some(ACME_TLS) && protocols.next().is_none() {
            let challenges = self.challenges.read().unwrap_or_else(PoisonError::into_inner);
            let asked = challenges.iter().rev().find(|(known, _)| Some(known) == name.as_ref());
            return asked.map(|(_, key)| Arc::clone(key));
        }
        self.find(name.as_deref())
    }
}

fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let fault = |path: &Path| {
        let path = path.display().to_string();
        move |error| TlsError::File(path.clone(), error)
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .map_err(fault(&files.certificate))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(fault(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(fault(&files.key))?;
    // Checks that the two belong together.
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}
