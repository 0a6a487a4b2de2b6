//! The way that a client's media should take next, after those before have failed: anything, then ICE-TCP, then a relay
//! over TLS, then anything again.
//!
//! Owns what is remembered of each identity. Driven by the room, when a transport fails and when a client says that one has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use livekit_protocol::signal_request::Message;
use livekit_protocol::{ClientConfigSetting, ClientConfiguration, IceServer, ReconnectReason};

use crate::types::{CloseReason, Identity, ParticipantHandle, TransportHandle};

use super::participant::Participant;
use super::room::Room;

/// LiveKit: a connection that failed so soon says by itself that its way does not work …
const SHORT_CONNECTION: Duration = Duration::from_secs(90);
/// … others say so when this many fail, each within this time of the one before.
const FAILURES: u32 = 2;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
/// LiveKit: somebody whose signalling has been silent for longer has lost his network, not one way through it.
const SIGNAL_WITHIN: Duration = Duration::from_secs(15);
/// LiveKit: how long the way is remembered after it was chosen.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Identities whose failures are remembered in one room: more than its connections can fail in that time. The one to be
/// forgotten first makes room.
const MAX_REMEMBERED: usize = 1024;

/// LiveKit: `ICECandidateType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    #[default]
    Any,
    /// Our ICE-TCP candidates only.
    Tcp,
    /// The client uses a relay, over TLS where there is one.
    Relay,
}

impl Way {
    /// LiveKit: the numbers of `CandidateProtocol` are those of `ICECandidateType`.
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Tcp,
            2 => Self::Relay,
            _ => Self::Any,
        }
    }

    /// What comes after it, of what there is.
    fn next(self, possible: Possible) -> Self {
        match self {
            Self::Any if possible.tcp => Self::Tcp,
            Self::Any | Self::Tcp if possible.relay => Self::Relay,
            _ => Self::Any,
        }
    }
}

/// What there is to fall back to, for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Possible {
    tcp: bool,
    relay: bool,
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    way: Way,
    count: u32,
    last: Instant,
    until: Instant,
}

/// What has failed for whom.
#[derive(Debug, Default)]
pub(super) struct Fallbacks {
    known: BTreeMap<Identity, Failures>,
}

impl Fallbacks {
    pub(super) fn way(&self, now: Instant, identity: &Identity) -> Way {
        let failures = self.known.get(identity).filter(|failures| failures.until > now);
        failures.map_or(Way::Any, |failures| failures.way)
    }

    pub(super) fn choose(&mut self, now: Instant, identity: &Identity, way: Way) {
        let failures = self.entry(now, identity);
        (failures.way, failures.count, failures.until) = (way, 0, now + REMEMBERED);
    }

    /// A connection has failed.
    fn failed(&mut self, now: Instant, identity: &Identity, was_short: bool, possible: Possible) {
        let failures = self.entry(now, identity);
        let is_another = now.duration_since(std::mem::replace(&mut failures.last, now)) <= FAILURES_WITHIN;
        failures.count = if is_another { failures.count + 1 } else { 1 };
        failures.until = now + REMEMBERED;
        if was_short || failures.count >= FAILURES {
            failures.way = failures.way.next(possible);
            failures.count = 0;
        }
    }

    fn entry(&mut self, now: Instant, identity: &Identity) -> &mut Failures {
        self.known.retain(|_, failures| failures.until > now);
        if self.known.len() >= MAX_REMEMBERED && !self.known.contains_key(identity) {
            let soonest = self.known.iter().min_by_key(|(_, failures)| failures.until);
            let soonest = soonest.map(|(identity, _)| identity.clone());
            self.known.retain(|identity, _| Some(identity) != soonest.as_ref());
        }
        self.known.entry(identity.clone()).or_insert(Failures {
            way: Way::Any,
            count: 0,
            last: now,
            until: now + REMEMBERED,
        })
    }
}

impl Room {
    /// A transport has ended, `since` when it was connected. What the client or the server asked for is no failure.
    pub(super) fn note_failure(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        since: Option<Instant>,
        reason: CloseReason,
    ) {
        let is_there = self
            .participants
            .get(&handle)
            .is_some_and(|participant| participant.connection.is_some());
        if is_there && matches!(reason, CloseReason::IceFailed | CloseReason::DtlsFailed) {
            let was_short = since.is_some_and(|since| now.duration_since(since) < SHORT_CONNECTION);
            self.way_failed(now, handle, was_short);
        }
    }

    /// LiveKit: a client that comes back because a connection of its own failed soon after it was up will not do better the
    /// same way.
    pub(super) fn heed_reconnect(&mut self, now: Instant, handle: ParticipantHandle, reason: ReconnectReason) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let peer = match (reason, &mut participant.subscriber) {
            (ReconnectReason::RrSubscriberFailed, Some(subscriber)) => subscriber,
            (ReconnectReason::RrSubscriberFailed | ReconnectReason::RrPublisherFailed, _) => &mut participant.publisher,
            _ => return,
        };
        let since = peer.connected_at.take();
        participant.heard_at = now;
        if since.is_some_and(|since| now.duration_since(since) < SHORT_CONNECTION) {
            self.way_failed(now, handle, true);
        }
    }

    /// A message of the client's: it is there, and what it says of the way to us.
    pub(super) fn note_heard(&mut self, now: Instant, handle: ParticipantHandle, message: &Message) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.heard_at = now;
        if let Message::PingReq(ping) = message
            && let Ok(rtt @ 1..) = u64::try_from(ping.rtt)
        {
            participant.signal_rtt = Some(Duration::from_millis(rtt));
        }
    }

    /// LiveKit (`allow_udp_unstable_fallback`): where a stream is about as near as UDP is, and UDP loses much for long, the client
    /// is made to come back, and is led over TCP then. Only with a limit for TCP, which says how near is near enough.
    pub(super) fn transport_lossy(&mut self, now: Instant, transport: TransportHandle, rtt: Duration) {
        let handle = self.transports.get(&transport).copied();
        let Some((handle, participant)) = handle.and_then(|handle| Some((handle, self.participants.get(&handle)?)))
        else {
            return;
        };
        let limit = self.settings.tcp_fallback_rtt_threshold.min(rtt * 13 / 10);
        let is_near = !limit.is_zero() && participant.signal_rtt.is_none_or(|rtt| rtt < limit);
        let may_go = participant.way == Way::Any && participant.connection.is_some();
        if !self.settings.udp_unstable_fallback || !is_near || !may_go {
            return;
        }
        self.way_failed(now, handle, true);
        if self
            .participants
            .get(&handle)
            .is_some_and(|participant| participant.way != Way::Any)
        {
            self.drop_connection(now, handle);
        }
    }

    /// The next descriptions and responses lead the client this way, on all its connections.
    pub(super) fn choose_way(&mut self, now: Instant, handle: ParticipantHandle, way: Way) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        self.fallbacks.choose(now, &participant.identity, way);
        participant.take_way(way);
    }

    fn way_failed(&mut self, now: Instant, handle: ParticipantHandle, was_short: bool) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let is_heard = now.duration_since(participant.heard_at) < SIGNAL_WITHIN;
        if !self.settings.tcp_fallback || !is_heard {
            return;
        }
        let possible = Possible {
            tcp: self.may_use_tcp(participant),
            relay: self.settings.ice_servers.iter().any(|server| server.relays_streams()),
        };
        let identity = participant.identity.clone();
        self.fallbacks.failed(now, &identity, was_short, possible);
        let way = self.fallbacks.way(now, &identity);
        if let Some(participant) = self.participants.get_mut(&handle) {
            participant.take_way(way);
        }
    }

    /// LiveKit: a stream over a long way is worse than a relay near to the client.
    fn may_use_tcp(&self, participant: &Participant) -> bool {
        let limit = self.settings.tcp_fallback_rtt_threshold;
        let is_near = limit.is_zero() || participant.signal_rtt.is_none_or(|rtt| rtt < limit);
        is_near && participant.client.accepts_ice_tcp() && participant.has_tcp_candidates()
    }
}

impl Participant {
    pub(super) fn take_way(&mut self, way: Way) {
        self.way = way;
        let only_tcp = way == Way::Tcp;
        self.publisher.negotiator.prefer_tcp(only_tcp);
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.negotiator.prefer_tcp(only_tcp);
        }
    }

    fn has_tcp_candidates(&self) -> bool {
        self.publisher.negotiator.has_tcp_candidates()
    }

    /// What the client is told of its way.
    pub(super) fn configuration(&self) -> Option<ClientConfiguration> {
        (self.way == Way::Relay).then(|| ClientConfiguration {
            force_relay: ClientConfigSetting::Enabled as i32,
            ..Default::default()
        })
    }
}

/// LiveKit: a client that is to use a relay over TLS is told of no other server. Without one, of those over TCP.
pub(super) fn of_way(way: Way, servers: Vec<IceServer>) -> Vec<IceServer> {
    if way != Way::Relay {
        return servers;
    }
    let only = |suits: fn(&str) -> bool| -> Vec<IceServer> {
        let servers = servers.iter().cloned().map(|mut server| {
            server.urls.retain(|url| suits(url));
            server
        });
        servers.filter(|server| !server.urls.is_empty()).collect()
    };
    let secure = only(|url| url.starts_with("turns:"));
    if secure.is_empty() {
        only(|url| url.ends_with("transport=tcp"))
    } else {
        secure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Possible = Possible { tcp: true, relay: true };

    fn alice() -> Identity {
        Identity("alice".into())
    }

    #[test]
    fn from_way_to_way_and_back_to_any() {
        let mut fallbacks = Fallbacks::default();
        let now = Instant::now();
        let mut ways = Vec::new();
        for _ in 0..4 {
            fallbacks.failed(now, &alice(), true, ALL);
            ways.push(fallbacks.way(now, &alice()));
        }
        assert_eq!(ways, [Way::Tcp, Way::Relay, Way::Any, Way::Tcp]);
        let without = |tcp, relay| Way::Any.next(Possible { tcp, relay });
        assert_eq!(
            [without(false, true), without(true, false), without(false, false)],
            [Way::Relay, Way::Tcp, Way::Any]
        );
    }

    #[test]
    fn a_long_connection_may_fail_once_a_minute() {
        let mut fallbacks = Fallbacks::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 61, 122] {
            fallbacks.failed(at(seconds), &alice(), false, ALL);
            assert_eq!(fallbacks.way(at(seconds), &alice()), Way::Any);
        }
        fallbacks.failed(at(180), &alice(), false, ALL);
        assert_eq!(fallbacks.way(at(180), &alice()), Way::Tcp);
        assert_eq!(fallbacks.way(at(180), &Identity("bob".into())), Way::Any);
        assert_eq!(fallbacks.way(at(479), &alice()), Way::Tcp);
        assert_eq!(fallbacks.way(at(480), &alice()), Way::Any, "forgotten");
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let mut fallbacks = Fallbacks::default();
        let start = Instant::now();
        for number in 0..MAX_REMEMBERED as u64 + 10 {
            let now = start + Duration::from_millis(number);
            fallbacks.failed(now, &Identity(format!("{number}")), true, ALL);
        }
        assert_eq!(fallbacks.known.len(), MAX_REMEMBERED);
        let now = start + Duration::from_secs(2);
        assert_eq!(fallbacks.way(now, &Identity("9".into())), Way::Any);
        assert_eq!(fallbacks.way(now, &Identity("10".into())), Way::Tcp);
    }

    #[test]
    fn who_must_use_a_relay_is_told_of_nothing_else() {
        let server = |urls: &[&str]| IceServer {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Default::default()
        };
        let all = vec![
            server(&[
                "turn:1.2.3.4:443?transport=udp",
                "turn:1.2.3.4:443?transport=tcp",
                "turns:t.example:443?transport=tcp",
            ]),
            server(&["stun:1.2.3.4:3478"]),
        ];
        assert_eq!(of_way(Way::Tcp, all.clone()), all);
        assert_eq!(
            of_way(Way::Relay, all.clone()),
            [server(&["turns:t.example:443?transport=tcp"])]
        );
        let plain = vec![server(&[
            "turn:1.2.3.4:443?transport=udp",
            "turn:1.2.3.4:443?transport=tcp",
        ])];
        assert_eq!(of_way(Way::Relay, plain), [server(&["turn:1.2.3.4:443?transport=tcp"])]);
    }
}
