//! What a peer's description says about its transport.

use crate::sdp::{MediaSection, SectionKind, SessionDescription, Setup, TransportAttributes};
use crate::types::{DtlsRole, IceCredentials, RemoteParameters};

use super::NegotiationError;

/// RFC 8841 §6.1: what `a=max-message-size` means when it is left out, in bytes.
const DEFAULT_MAX_MESSAGE_SIZE: u32 = 65_536;

/// For each m-line whether it belongs to the one transport there is: not rejected, and in the BUNDLE group. Without a
/// group only the first one does.
pub fn bundled(description: &SessionDescription) -> Vec<bool> {
    let mut alone = description.bundle.is_none();
    description
        .media
        .iter()
        .map(|media| {
            if media.is_rejected() {
                return false;
            }
            match &description.bundle {
                Some(mids) => media
                    .mid
                    .is_some_and(|mid| mids.iter().any(|name| name == mid.as_str())),
                None => std::mem::take(&mut alone),
            }
        })
        .collect()
}

/// `established` is our DTLS role once the first description has settled it; it stays for the life of the session,
/// since the association is never made anew (RFC 8842 §5.5).
pub fn parameters(
    description: &SessionDescription,
    bundled: &[bool],
    established: Option<DtlsRole>,
) -> Result<RemoteParameters, NegotiationError> {
    let members = || {
        description
            .media
            .iter()
            .zip(bundled)
            .filter(|(_, member)| **member)
            .map(|(media, _)| media)
    };
    // RFC 8843 §7.2: transport attributes of a bundle count in its first m-line; some stacks leave them at session level.
    let levels = levels(description, bundled).ok_or(NegotiationError::NothingUsable)?;
    Ok(RemoteParameters {
        ice: ice(levels)?,
        fingerprint: fingerprint(levels)?,
        dtls_role: match established {
            Some(role) => role,
            None => dtls_role(levels)?,
        },
        sctp_max_message_size: members()
            .find(|media| media.kind == SectionKind::Application)
            .map(max_message_size),
        sctp_init: None,
        sped: !sped_options(levels).is_empty(),
    })
}

/// How clients name SPED (draft-hancke-webrtc-sped): as the draft does, and as libwebrtc did before and after M155.
pub const SPED_OPTIONS: [&str; 3] = ["sped", "googspedv1", "goog-sped-v1"];

/// Those of a description.
pub fn sped_options(levels: [&TransportAttributes; 2]) -> Vec<String> {
    let options = levels.into_iter().flat_map(|level| &level.ice_options);
    let known = options.filter(|option| SPED_OPTIONS.contains(&option.as_str()));
    known.cloned().collect()
}

/// The attributes that count for a bundle, m-line and session (RFC 8843 §7.2).
pub fn levels<'a>(description: &'a SessionDescription, bundled: &[bool]) -> Option<[&'a TransportAttributes; 2]> {
    let mut members = description.media.iter().zip(bundled).filter(|(_, member)| **member);
    let (first, _) = members.next()?;
    Some([&first.transport, &description.transport])
}

fn ice(levels: [&TransportAttributes; 2]) -> Result<IceCredentials, NegotiationError> {
    levels
        .into_iter()
        .find_map(|level| {
            Some(IceCredentials {
                ufrag: level.ufrag.clone()?,
                pwd: level.pwd.clone()?,
            })
        })
        .ok_or(NegotiationError::MissingIce)
}

fn fingerprint(levels: [&TransportAttributes; 2]) -> Result<[u8; 32], NegotiationError> {
    let offered = levels
        .into_iter()
        .map(|level| &level.fingerprints)
        .find(|fingerprints| !fingerprints.is_empty())
        .ok_or(NegotiationError::MissingFingerprint)?;
    offered
        .iter()
        .filter(|fingerprint| fingerprint.hash == "sha-256")
        .find_map(|fingerprint| fingerprint.bytes.as_slice().try_into().ok())
        .ok_or_else(|| {
            let hash = offered
                .first()
                .map(|fingerprint| fingerprint.hash.clone())
                .unwrap_or_default();
            NegotiationError::UnsupportedFingerprint(hash)
        })
}

/// We are the DTLS server wherever the peer leaves us the choice: its ClientHello comes with its first packets, and
/// none of our timers is involved.
fn dtls_role(levels: [&TransportAttributes; 2]) -> Result<DtlsRole, NegotiationError> {
    match levels.into_iter().find_map(|level| level.setup) {
        None | Some(Setup::Actpass | Setup::Active) => Ok(DtlsRole::Passive),
        Some(Setup::Passive) => Ok(DtlsRole::Active),
        Some(Setup::Holdconn) => Err(NegotiationError::UnsupportedSetup),
    }
}

fn max_message_size(media: &MediaSection) -> u32 {
    match media.max_message_size {
        None => DEFAULT_MAX_MESSAGE_SIZE,
        Some(0) => u32::MAX,
        Some(size) => size,
    }
}
