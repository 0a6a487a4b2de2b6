//! One transport: a client's ICE + DTLS + SRTP + SCTP association, from datagrams to cleartext and back.
//!
//! Owns the four protocols and the order in which they are asked after an input. Driven by a shard; see [`Transport`] for
//! the calls. Never forwards, never looks into payloads, holds no global state: a panic in here, caught by the shard,
//! costs this transport only.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::classify::{PacketKind, classify};
use super::dtls::{DtlsIdentity, DtlsOutput, DtlsSession};
use super::ice::Ice;
use super::sctp::{AssociationLost, ChannelId, Sctp, SendDataError};
use super::selection::Sign;
use super::sped::{self, Embedded, Sped, Unsupported};
use super::srtp::{OpenContext, SealContext, SrtpKeys};
use crate::types::{
    ChannelLabel, CloseReason, DropReason, DtlsRole, IceCredentials, NetPath, RemoteParameters, SrtpProfile,
};

/// Without a valid STUN message for this long nothing is sent to the peer any more, and unless there is patience it is
/// gone. LiveKit: 10 s to "disconnected" and 5 s to "failed". RFC 7675 §5.1 would allow 30 s.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(15);
/// From the peer's description to keys; also the grace for a peer that was just asked to restart ICE.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Datagrams of STUN, DTLS and SCTP that wait for `poll_transmit`; beyond that the newest is dropped, as the network
/// might. SCTP's send buffer is 230 packets.
const MAX_TRANSMITS: usize = 512;
/// Rounds of DTLS and SCTP feeding each other after one input. Each round needs the other's output, so this is never
/// reached; it keeps a fault from becoming a hang.
const MAX_ROUNDS: usize = 64;

#[derive(Clone, Debug)]
pub struct TransportConfig {
    pub local: IceCredentials,
    /// Answer checks only (RFC 8445 §2.5).
    pub ice_lite: bool,
    /// Full ICE only: RFC 8445 §6.1.1.
    pub ice_controlling: bool,
    /// Host candidates. A lite agent learns further ones from the requests that reach it.
    pub local_addresses: Vec<SocketAddr>,
    /// Opened by DCEP once SCTP is up.
    pub open_channels: Vec<ChannelLabel>,
}

/// What a datagram was. `Rtp` and `Rtcp` are cleartext, authentic and seen for the first time, in the caller's memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// STUN or DTLS: there may be transmits and events.
    Consumed,
    Rtp(&'a mut [u8]),
    /// A compound packet.
    Rtcp(&'a mut [u8]),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// ICE is verified and the SRTP keys are there. Once.
    Connected {
        profile: SrtpProfile,
    },
    /// Consent has expired: nothing may be sent (RFC 7675 §5.1). `Heard` or `Closed` follows.
    Silent,
    /// A check has come again.
    Heard,
    /// The last event. What `poll_transmit` still has should be sent (close_notify), nothing else will come.
    Closed(CloseReason),
    ChannelOpen {
        channel: ChannelId,
        /// None for a label that LiveKit's protocol does not know.
        label: Option<ChannelLabel>,
    },
    ChannelData {
        channel: ChannelId,
        binary: bool,
        data: Bytes,
    },
    ChannelClosed {
        channel: ChannelId,
    },
    /// After `SendDataError::Full`: half of the send buffer is free again.
    ChannelWritable {
        channel: ChannelId,
    },
}

/// Counters of one transport, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportStats {
    /// Refused by `seal_rtp`: an index half the sequence space behind the newest of its SSRC.
    pub seals_refused: u64,
    /// SCTP packets that made no sense, or were more than a channel that is not read may hold.
    pub sctp_dropped: u64,
    /// STUN, DTLS or SCTP datagrams that found the transmit queue full.
    pub transmits_dropped: u64,
}

/// Datagrams waiting to be sent.
pub(super) struct Transmits {
    queue: VecDeque<(NetPath, Vec<u8>)>,
    dropped: u64,
}

impl Transmits {
    pub(super) fn push(&mut self, path: NetPath, datagram: Vec<u8>) {
        if self.queue.len() >= MAX_TRANSMITS {
            self.dropped += 1;
            return;
        }
        self.queue.push_back((path, datagram));
    }
}

/// One ICE + DTLS + SRTP + SCTP association.
///
/// Call order: any of `handle_*`, `set_remote`, `send_data`…, then `poll_transmit` until None, `poll_event` until None,
/// then `poll_timeout`, whose instant is when `handle_timeout` is due (in the past = now). Every input makes all the
/// progress it can at once; timers are for loss and silence only. `now` must never go back.
///
/// After `Closed` every input is refused with `DropReason::UnknownPath`.
pub struct Transport {
    ice: Ice,
    identity: DtlsIdentity,
    dtls: Option<DtlsSession>,
    /// Where the last DTLS record came from.
    dtls_path: Option<NetPath>,
    srtp: Option<Srtp>,
    sctp: Option<Box<Sctp>>,
    /// As long as the handshake rides on connectivity checks.
    sped: Option<Box<Sped>>,
    open_channels: Vec<ChannelLabel>,
    has_remote: bool,
    closed: bool,
    consent_until: Option<Instant>,
    /// See `set_patience`.
    patience: Duration,
    silent: bool,
    connect_until: Option<Instant>,
    transmits: Transmits,
    events: VecDeque<TransportEvent>,
    seals_refused: u64,
    sctp_dropped: u64,
}

struct Srtp {
    seal: SealContext,
    open: OpenContext,
}

impl Transport {
    pub fn new(config: TransportConfig, identity: &DtlsIdentity, now: Instant) -> Self {
        Self {
            ice: Ice::new(
                &config.local,
                config.ice_lite,
                config.ice_controlling,
                &config.local_addresses,
                now,
            ),
            identity: identity.clone(),
            dtls: None,
            dtls_path: None,
            srtp: None,
            sctp: None,
            sped: None,
            open_channels: config.open_channels,
            has_remote: false,
            closed: false,
            consent_until: None,
            patience: Duration::ZERO,
            silent: false,
            connect_until: None,
            transmits: Transmits {
                queue: VecDeque::new(),
                dropped: 0,
            },
            events: VecDeque::new(),
            seals_refused: 0,
            sctp_dropped: 0,
        }
    }

    /// A transport that skips ICE and DTLS: media flows on `path` with the given keys. For tests whose story is not the
    /// handshake.
    #[doc(hidden)]
    pub fn connected(
        config: TransportConfig,
        identity: &DtlsIdentity,
        now: Instant,
        path: NetPath,
        keys: &SrtpKeys,
        role: DtlsRole,
    ) -> Self {
        let mut transport = Self::new(config, identity, now);
        transport.ice.inject_path(now, path);
        transport.install_keys(keys, role);
        transport
    }

    /// How long a peer that was connected may be silent before it is gone; at least `CONSENT_TIMEOUT`, after which nothing
    /// is sent to it. None was asked for: that is all it has.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// What the peer's description says: starts DTLS. May come after the first STUN. Called again (renegotiation, the
    /// answer to an ICE restart) it takes new ICE credentials and a data section that was not there before; fingerprint
    /// and role are those of the first call (RFC 8842 §5.5: keeping the association).
    pub fn set_remote(&mut self, now: Instant, remote: &RemoteParameters) {
        if self.closed {
            return;
        }
        if self.ice.set_remote(now, &remote.ice, &mut self.transmits) {
            self.consent_until = Some(now + CONNECT_TIMEOUT);
        }
        if self.dtls.is_none() && self.srtp.is_none() {
            self.dtls = Some(DtlsSession::new(
                &self.identity,
                remote.dtls_role,
                remote.fingerprint,
                now,
            ));
            self.sped = remote.sped.then(Box::default);
        }
        if !self.has_remote {
            self.has_remote = true;
            self.connect_until = self.srtp.is_none().then_some(now + CONNECT_TIMEOUT);
        }
        if let (None, Some(limit)) = (&self.sctp, remote.sctp_max_message_size) {
            let role = self.dtls.as_ref().map_or(remote.dtls_role, DtlsSession::role);
            let mut sctp = Box::new(Sctp::new(
                role,
                limit,
                std::mem::take(&mut self.open_channels),
                remote.sctp_init.clone(),
            ));
            if self.srtp.is_some() {
                sctp.start();
            }
            self.sctp = Some(sctp);
        }
        self.progress(now);
    }

    /// New local credentials, and the peer's when they are known already. DTLS, SRTP and SCTP go on as they are, on the
    /// old path until the new checks have chosen one.
    pub fn restart_ice(&mut self, now: Instant, local: IceCredentials, remote: Option<IceCredentials>) {
        if self.closed {
            return;
        }
        // The handshake that rides on checks is signed with the new credentials.
        self.ice.restart(now, &local, self.sped.is_none());
        if let Some(remote) = remote {
            self.ice.set_remote(now, &remote, &mut self.transmits);
        }
        if self.has_remote {
            self.consent_until = Some(now + CONNECT_TIMEOUT);
        }
        self.progress(now);
    }

    /// RFC 8839 §5.1 text, with or without `candidate:`. Ignored by a lite agent, and when it does not parse.
    pub fn add_remote_candidate(&mut self, now: Instant, text: &str) {
        if !self.closed {
            self.ice.add_remote_candidate(now, text, &mut self.transmits);
        }
    }

    /// One datagram. `path.local` is the address it arrived on; replies leave from there.
    ///
    /// DTLS and SRTP are looked at only when a STUN message with valid integrity came from the same 5-tuple in the last
    /// 30 s.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        path: NetPath,
        datagram: &'a mut [u8],
    ) -> Result<Received<'a>, DropReason> {
        if self.closed {
            return Err(DropReason::UnknownPath);
        }
        let kind = classify(datagram)?;
        if kind == PacketKind::Stun {
            self.ice.handle(now, path, datagram, &mut self.transmits)?;
            if self.has_remote {
                let known = self.consent_until.filter(|_| !self.silent).unwrap_or(now);
                self.consent_until = Some(known.max(now + CONSENT_TIMEOUT));
            }
            if std::mem::take(&mut self.silent) {
                self.events.push_back(TransportEvent::Heard);
            }
            self.take_embedded(now, path, datagram)?;
            self.progress(now);
            return Ok(Received::Consumed);
        }
        if kind == PacketKind::TurnChannel {
            return Err(DropReason::UnknownProtocol);
        }
        if !self.ice.is_verified(now, path) {
            return Err(DropReason::IceUnverified);
        }
        match kind {
            PacketKind::Dtls => {
                let dtls = self.dtls.as_mut().ok_or(DropReason::BadDtls)?;
                self.dtls_path = Some(path);
                if let Some(sped) = &mut self.sped {
                    sped.begin();
                    sped.note(datagram);
                }
                if let Err(reason) = dtls.handle(now, datagram) {
                    self.fail(reason);
                    return Err(DropReason::BadDtls);
                }
                self.progress(now);
                Ok(Received::Consumed)
            }
            PacketKind::Rtp => {
                let srtp = self.srtp.as_mut().ok_or(DropReason::NoKeys)?;
                let len = srtp.open.open_rtp(datagram)?;
                self.ice.heard(now, path, Sign::Media);
                self.end_sped(); // the peer has our last flight
                datagram.get_mut(..len).map(Received::Rtp).ok_or(DropReason::Truncated)
            }
            PacketKind::Rtcp => {
                let srtp = self.srtp.as_mut().ok_or(DropReason::NoKeys)?;
                let len = srtp.open.open_rtcp(datagram)?;
                self.ice.heard(now, path, Sign::Media);
                datagram.get_mut(..len).map(Received::Rtcp).ok_or(DropReason::Truncated)
            }
            PacketKind::Stun | PacketKind::TurnChannel => Err(DropReason::UnknownProtocol),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        let expired = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        let consent_over = expired(self.consent_until);
        let more = self.patience.saturating_sub(CONSENT_TIMEOUT);
        if consent_over && self.srtp.is_some() && !self.silent && !more.is_zero() {
            self.silent = true;
            self.consent_until = Some(now + more);
            self.events.push_back(TransportEvent::Silent);
        } else if consent_over || expired(self.connect_until) {
            return self.fail(CloseReason::IceFailed);
        }
        self.ice.handle_timeout(now, &mut self.transmits);
        if let Some(sped) = &mut self.sped {
            sped.begin();
        }
        if let Some(sctp) = &mut self.sctp {
            sctp.handle_timeout(now);
        }
        self.progress(now);
    }

    /// When `handle_timeout` is due; None = only an input can change anything.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let ice = self.ice.poll_timeout();
        let dtls = self.dtls.as_ref().and_then(DtlsSession::timeout);
        let sctp = self.sctp.as_ref().and_then(|sctp| sctp.poll_timeout());
        [ice, dtls, sctp, self.consent_until, self.connect_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next STUN or DTLS datagram to send. RTP and RTCP never pass here: the caller seals them where it sends them
    /// from.
    pub fn poll_transmit(&mut self) -> Option<(NetPath, Vec<u8>)> {
        let next = self.transmits.queue.pop_front();
        let Some(sped) = &mut self.sped else { return next };
        let Some((path, mut datagram)) = next else {
            return sped.poll_alone();
        };
        let password = sped::proof(&datagram).and_then(|proof| self.ice.password(proof));
        if let Some(password) = password {
            sped.embed(&mut datagram, password);
        }
        Some((path, datagram))
    }

    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    /// Where media goes: the nominated path, or one that is heard while that is silent; before nomination the one that was
    /// verified last. None until there is one.
    pub fn path(&self) -> Option<NetPath> {
        self.ice.path()
    }

    /// ICE is verified and the SRTP keys are there.
    pub fn is_connected(&self) -> bool {
        !self.closed && self.srtp.is_some() && self.ice.path().is_some()
    }

    pub fn stats(&self) -> TransportStats {
        TransportStats {
            seals_refused: self.seals_refused,
            sctp_dropped: self.sctp_dropped,
            transmits_dropped: self.transmits.dropped,
        }
    }

    /// Seals an RTP packet in place; its new length. `buf[..len]` is the cleartext packet, `header_len` of it header
    /// with extensions, and `buf` has `SEAL_OVERHEAD` spare bytes behind. `roc` is the rollover counter that belongs to
    /// the packet's sequence number. No allocation after the first packet of an SSRC.
    ///
    /// One (SSRC, roc, sequence) must never be sealed with two different contents: under AEAD GCM that tells an
    /// eavesdropper the XOR of both payloads and lets him forge. Retransmissions therefore take an RTX SSRC of their
    /// own (RFC 4588). Where a client has none, a plain resend must be *byte-identical*, header extensions included
    /// (the same transport-wide sequence number, the same abs-send-time): sealing that again gives the datagram that
    /// was sent before.
    ///
    /// Errors: `NoKeys`; `Malformed`; `TooLarge` when the spare bytes are missing; `TooOld`, counted in `stats`, for an
    /// index so far behind the newest of its SSRC that it can only be a second sender or one that started again.
    pub fn seal_rtp(&mut self, buf: &mut [u8], header_len: usize, len: usize, roc: u32) -> Result<usize, DropReason> {
        let srtp = self.srtp.as_mut().ok_or(DropReason::NoKeys)?;
        let sealed = srtp.seal.seal_rtp(buf, header_len, len, roc);
        if sealed == Err(DropReason::TooOld) {
            self.seals_refused += 1;
        }
        sealed
    }

    /// As `seal_rtp`, for a compound RTCP packet. The SRTCP index is kept here.
    pub fn seal_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, DropReason> {
        let srtp = self.srtp.as_mut().ok_or(DropReason::NoKeys)?;
        srtp.seal.seal_rtcp(buf, len)
    }

    /// Queues one message on an open channel; all or nothing.
    pub fn send_data(
        &mut self,
        now: Instant,
        channel: ChannelId,
        binary: bool,
        data: &[u8],
    ) -> Result<(), SendDataError> {
        if self.closed {
            return Err(SendDataError::Closed);
        }
        let sctp = self.sctp.as_mut().ok_or(SendDataError::Closed)?;
        sctp.send(channel, binary, data)?;
        self.progress(now);
        Ok(())
    }

    /// Bytes of a channel that the peer has not acknowledged yet.
    pub fn buffered_amount(&mut self, channel: ChannelId) -> usize {
        self.sctp.as_mut().map_or(0, |sctp| sctp.buffered_amount(channel))
    }

    /// False stops reading the channel: its messages stay in SCTP until the window (128 KiB for all channels) is full
    /// and the peer has to wait. True reads what has come since, at once.
    pub fn set_reading(&mut self, channel: ChannelId, reading: bool) {
        if let (false, Some(sctp)) = (self.closed, &mut self.sctp) {
            sctp.set_reading(channel, reading, &mut self.events);
        }
    }

    /// Lets data that waits leave, up to so many bytes, the last packet whole; what comes afterwards waits for the next call.
    /// None = all, from now on. Returns how many have left.
    pub fn release_data(&mut self, now: Instant, allowance: Option<usize>) -> usize {
        let Some(sctp) = &mut self.sctp else { return 0 };
        let allowance = allowance.map(|bytes| bytes as i64); // far below what that holds
        sctp.set_allowance(allowance);
        if sctp.is_held() && allowance != Some(0) {
            self.progress(now);
        }
        let left = self
            .sctp
            .as_mut()
            .and_then(|sctp| sctp.set_allowance(allowance.and(Some(0))));
        let sent = allowance.unwrap_or(0) - left.unwrap_or(0);
        usize::try_from(sent).unwrap_or(0)
    }

    /// SCTP packets dropped since the last call because too many waited for `release_data`; SCTP sends them again.
    pub fn take_refused_data(&mut self) -> u64 {
        self.sctp.as_mut().map_or(0, |sctp| sctp.take_refused())
    }

    /// What data there will be waits for `release_data`.
    pub fn holds_data(&self) -> bool {
        self.sctp.as_ref().is_none_or(|sctp| sctp.is_limited())
    }

    /// Data waits for `release_data`.
    pub fn has_data_waiting(&self) -> bool {
        self.sctp.as_ref().is_some_and(|sctp| sctp.is_held())
    }

    /// Says goodbye (DTLS close_notify, through `poll_transmit`) and ends with `Closed(Requested)`.
    pub fn close(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        self.say_goodbye(now);
        self.fail(CloseReason::Requested);
    }

    /// Where DTLS records go: the nominated path, before that back to where the last one came from.
    fn send_path(&self) -> Option<NetPath> {
        self.ice.selected().or(self.dtls_path).or_else(|| self.ice.path())
    }

    /// Drives DTLS and SCTP until neither has anything more to say.
    fn progress(&mut self, now: Instant) {
        // Without a path nothing can be sent, and a client's first flight must not be lost to that.
        let (Some(path), false) = (self.send_path(), self.closed) else {
            return;
        };
        for _ in 0..MAX_ROUNDS {
            if let Err(reason) = self.poll_dtls(now, path) {
                return self.fail(reason);
            }
            let (Some(_), Some(sctp)) = (&self.srtp, &mut self.sctp) else {
                return;
            };
            if let Err(AssociationLost) = sctp.progress(&mut self.events) {
                // The peer's doing either way: it aborted, or broke the rules so that our engine did.
                self.say_goodbye(now);
                return self.fail(CloseReason::ClosedByPeer);
            }
            let packets = sctp.poll_transmit(now);
            if packets.is_empty() {
                return;
            }
            for packet in packets {
                let Some(dtls) = &mut self.dtls else {
                    return;
                };
                if let Err(reason) = dtls.send(&packet) {
                    return self.fail(reason);
                }
                if let Err(reason) = self.poll_dtls(now, path) {
                    return self.fail(reason);
                }
            }
        }
    }

    /// What SCTP still wants to say (an ABORT), then close_notify, as far as there is a path to say it on.
    fn say_goodbye(&mut self, now: Instant) {
        let (Some(path), Some(dtls)) = (self.send_path(), &mut self.dtls) else {
            return;
        };
        let transmits = &mut self.transmits;
        let mut flush = |dtls: &mut DtlsSession| {
            dtls.poll(|output| {
                if let DtlsOutput::Packet(packet) = output {
                    transmits.push(path, packet.to_vec());
                }
            });
        };
        let _ = dtls.handle_timeout(now);
        for packet in self.sctp.iter_mut().flat_map(|sctp| sctp.poll_transmit(now)) {
            let _ = dtls.send(&packet);
            flush(dtls);
        }
        dtls.close();
        flush(dtls);
    }

    /// The record that an authentic STUN message carries goes where it would have gone by itself.
    fn take_embedded(&mut self, now: Instant, path: NetPath, message: &[u8]) -> Result<(), DropReason> {
        let Some(sped) = &mut self.sped else { return Ok(()) };
        let Some(embedded) = sped::read(message) else {
            return Ok(());
        };
        let is_over = self.srtp.is_some() && embedded == Embedded::default();
        match sped.handle(embedded) {
            Ok(record) if !is_over => {
                sped.begin();
                if let (Some(record), Some(dtls)) = (record, &mut self.dtls) {
                    self.dtls_path = Some(path);
                    if let Err(reason) = dtls.handle(now, record) {
                        self.fail(reason);
                        return Err(DropReason::BadDtls);
                    }
                }
                let is_done = self.srtp.is_some() && self.sped.as_ref().is_some_and(|sped| sped.is_drained());
                if is_done {
                    self.end_sped();
                }
            }
            Ok(_) | Err(Unsupported) => self.end_sped(),
        }
        Ok(())
    }

    /// From here on records go by themselves, those that have not left yet too.
    fn end_sped(&mut self) {
        if let Some(mut sped) = self.sped.take() {
            while let Some((path, record)) = sped.poll_alone() {
                self.transmits.push(path, record);
            }
        }
    }

    /// Takes in what DTLS has to say.
    fn poll_dtls(&mut self, now: Instant, path: NetPath) -> Result<(), CloseReason> {
        let Some(dtls) = &mut self.dtls else {
            return Ok(());
        };
        dtls.handle_timeout(now)?;
        let role = dtls.role();
        let sent_before = self.transmits.queue.len();
        let mut keys = None;
        let mut closed = None;
        let (transmits, sctp, sctp_dropped) = (&mut self.transmits, &mut self.sctp, &mut self.sctp_dropped);
        let sped = &mut self.sped;
        dtls.poll(|output| match output {
            DtlsOutput::Packet(packet) => {
                let rides = sped.as_mut().is_some_and(|sped| sped.capture(path, packet));
                if !rides {
                    transmits.push(path, packet.to_vec());
                }
            }
            DtlsOutput::Keys(new) => keys = Some(new),
            DtlsOutput::ApplicationData(data) => {
                if let Some(sctp) = sctp {
                    // A bad packet is the peer's own, DTLS having authenticated it: counted, no more.
                    if sctp.handle(now, data).is_err() {
                        *sctp_dropped += 1;
                    }
                }
            }
            DtlsOutput::Closed(reason) => closed = Some(reason),
        });
        if let Some(reason) = closed {
            if reason == CloseReason::FingerprintMismatch {
                // The impostor does not get to see our Finished.
                self.transmits.queue.truncate(sent_before);
                self.sped = None;
            }
            return Err(reason);
        }
        if let Some(keys) = keys {
            self.install_keys(&keys, role);
        }
        Ok(())
    }

    fn install_keys(&mut self, keys: &SrtpKeys, role: DtlsRole) {
        let Ok((seal, open)) = keys.contexts(role) else {
            return self.fail(CloseReason::DtlsFailed);
        };
        self.srtp = Some(Srtp { seal, open });
        self.connect_until = None;
        self.events.push_back(TransportEvent::Connected {
            profile: keys.profile(),
        });
        if let Some(sctp) = &mut self.sctp {
            sctp.start();
        }
    }

    /// Ends the transport: no keys, no sessions, one last event.
    fn fail(&mut self, reason: CloseReason) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.dtls = None;
        self.srtp = None;
        self.sctp = None;
        self.sped = None;
        self.events.push_back(TransportEvent::Closed(reason));
    }
}
