//! A certificate from an authority that speaks ACME (RFC 8555): asked for, proven by tls-alpn-01 (RFC 8737) on the port
//! that it is for, kept on disk, renewed when a third of its time is left.
//!
//! Owns the account and the certificate's file. Runs beside the server, which never waits for it: until there is a
//! certificate, one of its own making is served, which clients refuse. What fails is said and tried again.

mod client;
#[cfg(test)]
mod tests;
mod validity;

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::config::AcmeConfig;
use crate::io::{CertificateFiles, Tls, TlsError};
use client::AcmeClient;

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Under the working directory, as the database.
const CACHE: &str = "acme";
/// After a failure, doubled each time. Let's Encrypt takes five failed validations of a name in an hour.
const FIRST_RETRY: Duration = Duration::from_secs(120);
const LAST_RETRY: Duration = Duration::from_secs(60 * 60);
/// How often a certificate's age is looked at: a clock that is set is noticed.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// For the authority to check that the names are ours, and to make a certificate.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error("tls.acme.directory and tls.acme.ca_file: {0}")]
    Client(String),
    #[error("{path}: {error}")]
    File { path: String, error: io::Error },
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    #[error("the authority does not check {0} by tls-alpn-01")]
    NoChallenge(String),
    #[error("the authority has refused: {0}")]
    Refused(String),
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Who gets a certificate for what, and from where.
pub(super) struct Acme {
    domains: Vec<String>,
    email: String,
    directory: String,
    /// The account with this authority, and certificate and key for these names, in one file: it is there whole or not.
    account: PathBuf,
    certificate: PathBuf,
    client: AcmeClient,
    first_retry: Duration,
}

impl Acme {
    /// None where the configuration does not ask for it. Makes the directory.
    ///
    /// # Errors
    /// When the directory cannot be made, or the authority's own certificate not be read.
    pub(super) fn new(config: &AcmeConfig) -> Result<Option<Self>, AcmeError> {
        if config.domains.is_empty() {
            return Ok(None);
        }
        let directory = match config.directory.as_str() {
            "" => DIRECTORY,
            directory => directory,
        };
        let cache = Path::new(match config.cache_dir.as_str() {
            "" => CACHE,
            cache => cache,
        });
        std::fs::create_dir_all(cache).map_err(|error| file_error(cache, error))?;
        let mut domains: Vec<String> = config.domains.iter().map(|domain| domain.to_lowercase()).collect();
        domains.sort();
        domains.dedup();
        // Another authority, or other names, are another certificate.
        let of = |what: &str| {
            let digest = digest(&SHA256, what.as_bytes());
            let start = digest.as_ref().iter().take(8);
            start.map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        Ok(Some(Self {
            account: cache.join(format!("account-{}.json", of(directory))),
            certificate: cache.join(format!(
                "certificate-{}.pem",
                of(&format!("{directory} {}", domains.join(" ")))
            )),
            domains,
            email: config.email.clone(),
            directory: directory.to_owned(),
            client: AcmeClient::new(&config.ca_file)?,
            first_retry: FIRST_RETRY,
        }))
    }

    /// What is kept on disk; else one of our own making, until there is another.
    ///
    /// # Errors
    /// When that cannot be made.
    pub(super) fn tls(&self) -> Result<Tls, AcmeError> {
        let files = CertificateFiles {
            certificate: self.certificate.clone(),
            key: self.certificate.clone(),
        };
        if let Ok(tls) = Tls::new(files.clone(), &[]) {
            return Ok(tls.with_challenges());
        }
        let (chain, key) = own_certificate(&self.domains, None)?;
        Ok(Tls::expecting(files, chain, key)?.with_challenges())
    }

    /// Gets certificates and renews them, until `stopping` becomes true.
    pub(super) async fn keep(self, tls: Tls, mut stopping: watch::Receiver<bool>) {
        let mut retry = self.first_retry;
        loop {
            let pause = match self.time_left() {
                Some(left) if !left.is_zero() => left.min(LOOK),
                _ => match self.obtain(&tls).await {
                    Ok(()) => {
                        tracing::info!(domains = ?self.domains, "a certificate has come");
                        retry = self.first_retry;
                        // Whatever its dates say: not at once again.
                        self.first_retry
                    }
                    Err(error) => {
                        tracing::warn!(domains = ?self.domains, %error, again_in = ?retry, "no certificate; trying again");
                        let pause = retry;
                        retry = (2 * retry).min(LAST_RETRY);
                        pause
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    /// Until the certificate is to be renewed; None = there is none.
    fn time_left(&self) -> Option<Duration> {
        let chain = CertificateDer::pem_file_iter(&self.certificate).ok()?;
        let leaf = chain.flatten().next()?;
        let (from, until) = validity::validity(&leaf)?;
        let renew = until.saturating_sub((until.saturating_sub(from)) / 3);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Duration::from_secs(renew).saturating_sub(now))
    }

    async fn obtain(&self, tls: &Tls) -> Result<(), AcmeError> {
        let result = self.order(tls).await;
        tls.clear_challenges();
        let pem = result?;
        write_private(&self.certificate, pem.as_bytes())?;
        tls.reload()?;
        Ok(())
    }

    /// A new certificate with its key, in PEM.
    async fn order(&self, tls: &Tls) -> Result<String, AcmeError> {
        let account = self.account().await?;
        let names: Vec<Identifier> = self
            .domains
            .iter()
            .map(|domain| Identifier::Dns(domain.clone()))
            .collect();
        let mut order = account.new_order(&NewOrder::new(&names)).await?;
        prove(&mut order, tls).await?;
        let patience = RetryPolicy::new().timeout(PATIENCE);
        if order.poll_ready(&patience).await? != OrderStatus::Ready {
            return Err(AcmeError::Refused(why(&mut order).await));
        }
        let key = KeyPair::generate()?;
        let mut wanted = CertificateParams::new(self.domains.clone())?;
        // The names are all that an authority looks at.
        wanted.distinguished_name = DistinguishedName::new();
        let request = wanted.serialize_request(&key)?;
        order.finalize_csr(request.der()).await?;
        let chain = order.poll_certificate(&patience).await?;
        Ok(format!("{}{chain}", key.serialize_pem()))
    }

    async fn account(&self) -> Result<Account, AcmeError> {
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        if let Ok(text) = std::fs::read(&self.account)
            && let Ok(credentials) = serde_json::from_slice::<AccountCredentials>(&text)
        {
            return Ok(builder().from_credentials(credentials).await?);
        }
        let contact = format!("mailto:{}", self.email);
        let contacts = [contact.as_str()];
        let new = NewAccount {
            contact: if self.email.is_empty() { &[] } else { &contacts },
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let (account, credentials) = builder().create(&new, self.directory.clone(), None).await?;
        let text = serde_json::to_vec(&credentials).map_err(|error| file_error(&self.account, error.into()))?;
        write_private(&self.account, &text)?;
        Ok(account)
    }
}

/// RFC 8737 §3: for each name a certificate that carries the digest, for whoever speaks `acme-tls/1`.
async fn prove(order: &mut Order, tls: &Tls) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or_else(|| AcmeError::NoChallenge(name.clone()))?;
        let digest = challenge.key_authorization().digest();
        let (chain, key) = own_certificate(std::slice::from_ref(&name), Some(digest.as_ref()))?;
        tls.add_challenge(&name, chain, key)?;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// What the authority says of each name.
async fn why(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let errors = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        reasons.extend(errors.map(|error| format!("{name}: {error}")));
    }
    if reasons.is_empty() {
        "it does not say why".to_owned()
    } else {
        reasons.join("; ")
    }
}

/// Signed by itself.
fn own_certificate(
    names: &[String],
    digest: Option<&[u8]>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), AcmeError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(names.to_vec())?;
    if let Some(digest) = digest {
        parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    }
    let certificate = parameters.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((vec![certificate.der().clone()], key))
}

/// For this process only, and whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), AcmeError> {
    let fresh = path.with_extension("new");
    let written = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    written().map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, error: io::Error) -> AcmeError {
    AcmeError::File {
        path: path.display().to_string(),
        error,
    }
}
