//! The DTLS side of a transport: the process's certificate and configuration, and one `dimpl` session with the
//! fingerprint check that it leaves to us.
//!
//! DTLS 1.2 unless asked otherwise: its server prefers AEAD_AES_256_GCM, while dimpl's 1.3 server takes the first profile of
//! the client's list, which in browsers is AES-CM + HMAC-SHA1 at five times the cost. For the same reason the passive role
//! is the better one: as DTLS client it is the peer who chooses.

mod fragments;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output, certificate};
use thiserror::Error;

use fragments::Fragments;

use super::srtp::SrtpKeys;
use crate::types::{CloseReason, DtlsRole, SrtpProfile};

/// The largest datagram of ours; with IP and UDP it passes every path that carries 1200-byte media.
const MTU: usize = 1150;
/// First retransmission of a lost flight. Browsers start at 50 ms; dimpl's own second costs 2.5 s when two are lost.
const FLIGHT_RTO: Duration = Duration::from_millis(150);
/// Doubling from 150 ms, nine attempts end after 76 s: the handshake timeout decides, not this.
const FLIGHT_RETRIES: usize = 9;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer's certificate may be larger than a datagram; a session that needs more than this is given up.
const MAX_OUTPUT: usize = 64 * 1024;
const OUTPUT: usize = 2048;
/// dimpl says "idle" as ten years.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("the certificate could not be made: {0}")]
    Certificate(certificate::CertificateError),
    #[error("the DTLS configuration was refused: {0}")]
    Config(dimpl::Error),
}

/// Which versions of DTLS our side of a handshake speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsVersions {
    /// 1.2, whatever else the peer offers.
    #[default]
    Only12,
    /// 1.3 with whoever offers it, 1.2 with the others.
    Either,
    /// A peer without 1.3 gets no connection.
    Only13,
}

/// The process's certificate with the configuration that all its DTLS sessions share. A clone is one reference count;
/// what it points to is never written.
#[derive(Clone)]
pub struct DtlsIdentity {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    certificate: DtlsCertificate,
    fingerprint: [u8; 32],
    versions: DtlsVersions,
}

impl DtlsIdentity {
    /// Speaks DTLS 1.2. Some 30 ms the first time in a process (the crypto library warms up, the provider is validated):
    /// call it at start.
    pub fn generate() -> Result<Self, IdentityError> {
        Self::with_versions(DtlsVersions::default())
    }

    /// As `generate`.
    pub fn with_versions(versions: DtlsVersions) -> Result<Self, IdentityError> {
        let config = Config::builder()
            .mtu(MTU)
            // ICE has proven the peer's address; a cookie would cost a round trip.
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_RTO)
            .flight_retries(FLIGHT_RETRIES)
            .handshake_timeout(HANDSHAKE_TIMEOUT)
            .build()
            .map_err(IdentityError::Config)?;
        let certificate = certificate::generate_self_signed_certificate().map_err(IdentityError::Certificate)?;
        let fingerprint = sha256(&certificate.certificate);
        Ok(Self {
            shared: Arc::new(Shared {
                config: Arc::new(config),
                certificate,
                fingerprint,
                versions,
            }),
        })
    }

    /// SHA-256 of the certificate, for `a=fingerprint`.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.shared.fingerprint
    }
}

/// What a DTLS session reports, in order.
pub(super) enum DtlsOutput<'a> {
    Packet(&'a [u8]),
    /// The peer is who its description says, and these are the SRTP keys.
    Keys(SrtpKeys),
    ApplicationData(&'a [u8]),
    Closed(CloseReason),
}

pub(super) struct DtlsSession {
    dtls: Dtls,
    /// Until there are keys: nothing in the clear counts then.
    fragments: Option<Fragments>,
    expected_fingerprint: [u8; 32],
    /// The certificate was seen and is the described one.
    verified: bool,
    role: DtlsRole,
    timeout: Option<Instant>,
    now: Instant,
}

impl DtlsSession {
    pub(super) fn new(identity: &DtlsIdentity, role: DtlsRole, expected_fingerprint: [u8; 32], now: Instant) -> Self {
        let shared = &identity.shared;
        let new = match shared.versions {
            DtlsVersions::Only12 => Dtls::new_12,
            DtlsVersions::Either => Dtls::new_auto,
            DtlsVersions::Only13 => Dtls::new_13,
        };
        let mut dtls = new(shared.config.clone(), shared.certificate.clone(), now);
        dtls.set_active(role == DtlsRole::Active);
        Self {
            dtls,
            fragments: Some(Fragments::default()),
            expected_fingerprint,
            verified: false,
            role,
            timeout: None,
            now,
        }
    }

    pub(super) fn role(&self) -> DtlsRole {
        self.role
    }

    /// Poll afterwards. An error is final.
    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8]) -> Result<(), CloseReason> {
        self.handle_timeout(now)?;
        let dtls = &mut self.dtls;
        let mut take = |datagram: &[u8]| dtls.handle_packet(datagram).map_err(|_| CloseReason::DtlsFailed);
        match &mut self.fragments {
            Some(fragments) => fragments.handle(datagram, take),
            None => take(datagram),
        }
    }

    /// Poll afterwards. An error is final.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), CloseReason> {
        self.now = self.now.max(now);
        self.dtls.handle_timeout(self.now).map_err(|_| CloseReason::DtlsFailed)
    }

    /// Poll afterwards, before the next: the record queue is short. An error is final.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<(), CloseReason> {
        self.dtls
            .send_application_data(data)
            .map(|_| ())
            .map_err(|_| CloseReason::DtlsFailed)
    }

    /// Queues close_notify; poll afterwards.
    pub(super) fn close(&mut self) {
        let _ = self.dtls.close();
    }

    /// As of the last `poll`.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Hands out everything there is; stops at `Closed`, after which the session must be dropped: nothing that it would
    /// say or send afterwards counts.
    pub(super) fn poll(&mut self, mut each: impl FnMut(DtlsOutput<'_>)) {
        let mut small = [0u8; OUTPUT];
        // In a handshake there must be room for the peer's certificate at once: dimpl panics for one that does not fit.
        let mut large = match self.fragments {
            Some(_) => vec![0; fragments::MAX_MESSAGE],
            None => Vec::new(),
        };
        loop {
            let buffer: &mut [u8] = if large.is_empty() { &mut small } else { &mut large };
            match self.dtls.poll_output(buffer) {
                Output::Packet(packet) => each(DtlsOutput::Packet(packet)),
                Output::BufferTooSmall { needed } => {
                    if needed > MAX_OUTPUT || needed <= large.len() {
                        return each(DtlsOutput::Closed(CloseReason::DtlsFailed));
                    }
                    large = vec![0; needed];
                }
                Output::Timeout(at) => {
                    self.timeout = (at < self.now + IDLE).then_some(at);
                    return;
                }
                Output::PeerCert(der) => {
                    if sha256(der) != self.expected_fingerprint {
                        return each(DtlsOutput::Closed(CloseReason::FingerprintMismatch));
                    }
                    self.verified = true;
                }
                Output::Connected => {}
                Output::KeyingMaterial(material, profile) => {
                    // The assertion of DESIGN D6: a profile we cannot do ends here, loudly, instead of in silence.
                    let keys = srtp_profile(profile).and_then(|profile| SrtpKeys::new(profile, &material));
                    self.fragments = None;
                    match keys {
                        Some(keys) if self.verified => each(DtlsOutput::Keys(keys)),
                        _ => return each(DtlsOutput::Closed(CloseReason::DtlsFailed)),
                    }
                }
                Output::ApplicationData(data) if self.verified => each(DtlsOutput::ApplicationData(data)),
                Output::CloseNotify => return each(DtlsOutput::Closed(CloseReason::ClosedByPeer)),
                // Data before the certificate, and whatever dimpl's enum may grow.
                _ => {}
            }
        }
    }
}

fn srtp_profile(profile: dimpl::SrtpProfile) -> Option<SrtpProfile> {
    match profile {
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmHmacSha1_80),
        _ => None,
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut hash = [0u8; 32];
    for (byte, digest) in hash.iter_mut().zip(digest.as_ref()) {
        *byte = *digest;
    }
    hash
}
