//! The SRTP keys of a str0m client, taken from the export of its DTLS handshake.
//!
//! str0m opens every packet it is given, which costs several times what receiving it does. A counting subscriber lets str0m
//! connect, reads headers itself, and needs the keys only for the RTCP it sends and for the few packets it samples.

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, ProtocolVersion, SrtpProfile,
};
use str0m::crypto::{CryptoError, CryptoProvider};

/// RFC 5764 §4.2: client key, server key, client salt, server salt.
#[derive(Clone, Debug)]
pub struct Exported {
    pub material: Vec<u8>,
    pub profile: SrtpProfile,
    /// This end was the DTLS client.
    pub active: bool,
}

thread_local! {
    /// What the handshake that was polled last has exported. All clients run on one thread, one after another.
    static EXPORTED: RefCell<Option<Exported>> = const { RefCell::new(None) };
}

/// To be called after a client was polled: the keys, when its handshake has just ended.
pub fn take() -> Option<Exported> {
    EXPORTED.with(|exported| exported.borrow_mut().take())
}

/// str0m's own cryptography, whose DTLS shows its keys.
pub fn provider() -> Arc<CryptoProvider> {
    static SHOWING: OnceLock<ShowingKeys> = OnceLock::new();
    let mut provider = str0m::crypto::from_feature_flags();
    provider.dtls_provider = SHOWING.get_or_init(|| ShowingKeys(provider.dtls_provider));
    Arc::new(provider)
}

#[derive(Debug)]
struct ShowingKeys(&'static dyn DtlsProvider);

impl DtlsProvider for ShowingKeys {
    fn generate_certificate(&self) -> Option<DtlsCert> {
        self.0.generate_certificate()
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        dtls_version: DtlsVersion,
        mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let inner = self.0.new_dtls(cert, now, dtls_version, mtu)?;
        Ok(Box::new(Shown(inner)))
    }
}

#[derive(Debug)]
struct Shown(Box<dyn DtlsInstance>);

impl DtlsInstance for Shown {
    fn set_active(&mut self, active: bool) {
        self.0.set_active(active);
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.0.handle_packet(packet)
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let active = self.0.is_active();
        let output = self.0.poll_output(buf);
        if let DtlsOutput::KeyingMaterial(material, profile) = &output {
            let exported = Exported {
                material: material.to_vec(),
                profile: *profile,
                active,
            };
            EXPORTED.with(|slot| *slot.borrow_mut() = Some(exported));
        }
        output
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        self.0.handle_timeout(now)
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        self.0.send_application_data(data)
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.0.protocol_version()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        self.0.close()
    }
}
