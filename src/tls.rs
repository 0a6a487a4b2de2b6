//! TLS towards other servers: whom this program trusts, and with which cryptography.
//!
//! For everything here that is a client: webhooks, the ACME authority, Redis, PostgreSQL, media servers, the load tester. What a
//! certificate has to name is each caller's to say. TLS that this program serves is `io`'s.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::{self, ClientConfig, ConfigBuilder, RootCertStore};

/// Whose signature makes a certificate good. Paths are of PEM files.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// The machine's authorities.
    Machine,
    /// Those as well as the machine's.
    MachineAnd(&'a str),
    /// Those and no other.
    Only(&'a str),
}

impl<'a> Trust<'a> {
    /// As configurations write it: a file takes the place of the machine's authorities; empty = no file.
    pub fn only_or_machine(path: &'a str) -> Self {
        if path.is_empty() {
            Self::Machine
        } else {
            Self::Only(path)
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {error}")]
    File { path: String, error: pem::Error },
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// A client that shows no certificate of its own. Blocks: it reads files.
///
/// # Errors
/// The file of `trust` cannot be read, or has none.
pub fn connector(trust: Trust<'_>) -> Result<TlsConnector, TlsError> {
    Ok(Arc::new(config(trust)?.with_no_client_auth()).into())
}

/// What a client configuration begins with. Blocks: it reads files.
///
/// # Errors
/// As `connector`.
pub fn config(trust: Trust<'_>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Trust::Machine | Trust::MachineAnd(_) = trust {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            tracing::warn!(errors = ?found.errors, "no authorities' certificates on this machine: TLS to other servers will fail");
        }
    }
    if let Trust::MachineAnd(path) | Trust::Only(path) = trust {
        roots.add_parsable_certificates(certificates(path)?);
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots))
}

/// Those of a PEM file, in its order. Blocks.
///
/// # Errors
/// It cannot be read, or is not PEM.
pub fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(Path::new(path)).and_then(Iterator::collect);
    found.map_err(|error| TlsError::File {
        path: path.to_owned(),
        error,
    })
}
