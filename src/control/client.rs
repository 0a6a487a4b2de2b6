//! What the client's software can and cannot do, from its `ClientInfo`.

use livekit_protocol::ClientInfo;
use livekit_protocol::client_info::{Capability, Sdk};

use super::settings::PROTOCOL_VERSION;

/// The first protocol number with a behaviour (LiveKit: `protocol_version.go`, where the test is "greater than").
const SUBSCRIBER_PRIMARY: u32 = 3;
const TRANSCEIVER_REUSE: u32 = 4;
const CONNECTION_QUALITY: u32 = 5;
const ICE_LITE: u32 = 6;
const TRACK_UNPUBLISHED: u32 = 7;
const DEPARTED_ON_RESUME: u32 = 9;
const SYNC_STREAMS: u32 = 10;
const QUALITY_LOST: u32 = 11;
const IDENTITY_BASED_RECONNECT: u32 = 12;
const LEAVE_ACTION: u32 = 13;
const OK_RESPONSES: u32 = 15;
const ROOM_MOVED: u32 = 16;

#[derive(Clone, Debug)]
pub(super) struct Client {
    pub info: ClientInfo,
    /// At most `PROTOCOL_VERSION`.
    pub protocol: u32,
}

impl Client {
    pub(super) fn new(info: ClientInfo) -> Self {
        let protocol = u32::try_from(info.protocol).unwrap_or(0).min(PROTOCOL_VERSION);
        Self { info, protocol }
    }

    pub(super) fn is_firefox(&self) -> bool {
        self.info.browser.to_ascii_lowercase().starts_with("firefox")
    }

    /// LiveKit: Firefox does not work with an ICE-lite peer, and old SDKs treat it as a failure.
    pub(super) fn accepts_ice_lite(&self) -> bool {
        self.protocol >= ICE_LITE && !self.is_firefox()
    }

    pub(super) fn accepts_subscriber_primary(&self) -> bool {
        self.protocol >= SUBSCRIBER_PRIMARY
    }

    pub(super) fn reuses_transceivers(&self) -> bool {
        self.protocol >= TRANSCEIVER_REUSE
    }

    pub(super) fn reads_connection_quality(&self) -> bool {
        self.protocol >= CONNECTION_QUALITY
    }

    /// Older ones are told POOR.
    pub(super) fn reads_quality_lost(&self) -> bool {
        self.protocol >= QUALITY_LOST
    }

    /// Older ones are sent a mute instead.
    pub(super) fn reads_track_unpublished(&self) -> bool {
        self.protocol >= TRACK_UNPUBLISHED
    }

    pub(super) fn reads_departed_on_resume(&self) -> bool {
        self.protocol >= DEPARTED_ON_RESUME
    }

    pub(super) fn accepts_sync_streams(&self) -> bool {
        self.protocol >= SYNC_STREAMS && !self.is_firefox()
    }

    /// It takes a new session of a known identity for the same person; older ones must see the first one leave.
    pub(super) fn reconnects_by_identity(&self) -> bool {
        self.protocol >= IDENTITY_BASED_RECONNECT
    }

    pub(super) fn reads_leave_action(&self) -> bool {
        self.protocol >= LEAVE_ACTION
    }

    /// `RequestResponse` with reason OK; errors are sent to everyone who knows the message.
    pub(super) fn reads_ok_responses(&self) -> bool {
        self.protocol >= OK_RESPONSES
    }

    /// It can go to another room without connecting anew.
    pub(super) fn reads_room_moved(&self) -> bool {
        self.protocol >= ROOM_MOVED
    }

    /// LiveKit: a Rust core of protocol 9 or older stops at messages it does not know.
    pub(super) fn reads_late_messages(&self) -> bool {
        self.info.sdk() != Sdk::Rust || self.protocol >= 10
    }

    /// LiveKit: Go's client does not open TCP connections for media; Swift's does since 1.0.5.
    pub(super) fn accepts_ice_tcp(&self) -> bool {
        match self.info.sdk() {
            Sdk::Go => false,
            Sdk::Swift => self.version() >= (1, 0, 5),
            _ => true,
        }
    }

    fn version(&self) -> (u32, u32, u32) {
        let mut parts = self
            .info
            .version
            .split(['.', '-', '+'])
            .map(|part| part.parse::<u32>().ok());
        let mut next = || parts.next().flatten().unwrap_or(0);
        (next(), next(), next())
    }

    /// LiveKit: JS before 1.6.3 does not know `ReconnectResponse`.
    pub(super) fn reads_reconnect_response(&self) -> bool {
        if self.info.sdk() != Sdk::Js {
            return true;
        }
        self.version() >= (1, 6, 3)
    }

    /// LiveKit: the Go SDK reads signal messages while it still applies the offer of its own join request; an answer
    /// that overtakes this is refused, and the join fails.
    pub(super) fn may_miss_early_answer(&self) -> bool {
        self.info.sdk() == Sdk::Go
    }

    /// LiveKit: the JS SDK publishes its tracks again as soon as it has joined anew, and looks then whether its connection
    /// is up. If it is not yet, it shows nothing for two seconds, whatever it receives.
    pub(super) fn waits_after_early_answer(&self) -> bool {
        self.info.sdk() == Sdk::Js
    }

    pub(super) fn reads_packet_trailer(&self) -> bool {
        self.info.capabilities.contains(&(Capability::CapPacketTrailer as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_protocols_are_treated_as_ours() {
        let client = Client::new(ClientInfo {
            protocol: 18,
            ..Default::default()
        });
        assert_eq!(client.protocol, PROTOCOL_VERSION);
        assert!(client.reads_leave_action());
    }

    #[test]
    fn old_js_has_no_reconnect_response() {
        let client = |version: &str| {
            Client::new(ClientInfo {
                sdk: Sdk::Js as i32,
                version: version.into(),
                ..Default::default()
            })
        };
        assert!(!client("1.6.2").reads_reconnect_response());
        assert!(client("1.6.3").reads_reconnect_response());
        assert!(client("2.23.0").reads_reconnect_response());
    }
}
