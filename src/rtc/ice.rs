//! ICE of one transport (RFC 8445): the agent of the `is` crate with what a server on shared sockets adds to it.
//!
//! Owns the agent and the list of verified 5-tuples; which of them media takes is in `selection`. Driven by the transport
//! after every STUN message; a lite agent needs no timer of its own. Never sends on its own: what is to leave is pushed
//! to the transport's queue.

use std::time::{Duration, Instant};

use is::stun::{StunMessage, StunPacket};
use is::{Candidate, IceAgent, IceAgentEvent, IceCreds, Protocol};

use super::selection::{Selection, Sign};
use super::sped::Proof;
use super::transport::Transmits;
use crate::types::{DropReason, IceCredentials, NetPath, NetProtocol};

/// 5-tuples that may carry DTLS and SRTP at one time. A client on Wi-Fi, cellular and a VPN, each with IPv4 and IPv6,
/// has six; the one heard least recently makes room.
const MAX_VERIFIED_PATHS: usize = 16;
/// A verified 5-tuple not heard from by STUN for this long has to prove itself again (RFC 7675 §5.1: 30 s).
const PATH_LIFETIME: Duration = Duration::from_secs(30);
/// Addresses of this machine that one transport may be reached at; beyond that, checks to new ones are refused.
const MAX_LOCAL_ADDRESSES: usize = 32;
/// Trickled candidates of the peer that are looked at; the rest is ignored. Browsers have about ten.
const MAX_REMOTE_CANDIDATES: usize = 64;
/// Checks that a full agent makes at most: it would otherwise probe whatever addresses a client names.
const MAX_CANDIDATE_PAIRS: usize = 32;
/// Source addresses that the agent learns before its list is cleared (lite) or closed (full): it keeps each for good.
const MAX_LEARNED_SOURCES: usize = 64;
/// Checks that wait inside the agent for the peer's description. Its own limit is 100.
const MAX_WAITING_CHECKS: usize = 100;

pub(super) struct Ice {
    agent: IceAgent,
    /// The generation before the last restart: a client goes on checking under its credentials until it has the new ones,
    /// and those checks show where it is. Until a path is nominated under the new ones; a lite agent only.
    previous: Option<Box<IceAgent>>,
    lite: bool,
    controlling: bool,
    verified: Vec<Verified>,
    selection: Selection,
    locals: Vec<(std::net::SocketAddr, NetProtocol)>,
    remote_candidates: usize,
    learned: usize,
    /// Requests accepted before the peer's credentials were known. The agent answers one per `handle_timeout`.
    waiting: usize,
}

struct Verified {
    path: NetPath,
    heard: Instant,
}

impl Ice {
    pub(super) fn new(
        local: &IceCredentials,
        lite: bool,
        controlling: bool,
        addresses: &[std::net::SocketAddr],
        now: Instant,
    ) -> Self {
        let mut ice = Self {
            agent: agent(local, lite, controlling),
            previous: None,
            lite,
            controlling,
            verified: Vec::new(),
            selection: Selection::default(),
            locals: Vec::new(),
            remote_candidates: 0,
            learned: 0,
            waiting: 0,
        };
        for address in addresses {
            let _ = ice.learn_local(*address, NetProtocol::Udp);
        }
        // The agent says no timeout until it was called once.
        ice.agent.handle_timeout(now);
        ice
    }

    /// True when the credentials are new.
    pub(super) fn set_remote(&mut self, now: Instant, remote: &IceCredentials, out: &mut Transmits) -> bool {
        let remote = credentials(remote);
        if self.agent.remote_credentials() == Some(&remote) {
            return false;
        }
        self.agent.set_remote_credentials(remote);
        // Checks that came before the description are answered now, not one per timer.
        for _ in 0..std::mem::take(&mut self.waiting) {
            self.agent.handle_timeout(now);
        }
        self.progress(now, out);
        true
    }

    /// New credentials; paths stay until the new checks have chosen one (RFC 8445 §9). `keeps_answering`: checks under the
    /// old ones count until then.
    pub(super) fn restart(&mut self, now: Instant, local: &IceCredentials, keeps_answering: bool) {
        if self.lite && keeps_answering && self.agent.remote_credentials().is_some() {
            let mut new = agent(local, self.lite, self.controlling);
            for (address, net) in &self.locals {
                if let Ok(candidate) = Candidate::host(*address, protocol(*net)) {
                    new.add_local_candidate(candidate);
                }
            }
            new.handle_timeout(now);
            self.previous = Some(Box::new(std::mem::replace(&mut self.agent, new)));
        } else {
            self.previous = None;
            self.agent.ice_restart(credentials(local), true);
        }
        self.remote_candidates = 0;
        self.learned = 0;
        self.waiting = 0;
    }

    pub(super) fn add_remote_candidate(&mut self, now: Instant, text: &str, out: &mut Transmits) {
        if self.lite || self.remote_candidates >= MAX_REMOTE_CANDIDATES {
            return;
        }
        // RFC 8839 §5.1 with or without the attribute's name; candidates with mDNS names do not parse and are skipped,
        // the peer's own checks will show its address.
        let text = text.trim().trim_start_matches("a=");
        let parsed = if text.starts_with("candidate:") {
            Candidate::from_sdp_string(text)
        } else {
            Candidate::from_sdp_string(&format!("candidate:{text}"))
        };
        if let Ok(candidate) = parsed {
            self.remote_candidates += 1;
            self.agent.add_remote_candidate(candidate);
            self.progress(now, out);
        }
    }

    /// A STUN message. Ok when its integrity holds; then `path` is verified.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        path: NetPath,
        datagram: &[u8],
        out: &mut Transmits,
    ) -> Result<(), DropReason> {
        let message = StunMessage::parse(datagram).map_err(|_| DropReason::BadStun)?;
        // Checked before anything is learned, though the agent will do it again: a microsecond per check and client.
        let is_current = self.agent.accepts_message(&message);
        let is_previous = |agent: &IceAgent| agent.accepts_message(&message);
        if !is_current && !self.previous.as_deref().is_some_and(is_previous) {
            return Err(DropReason::BadStun);
        }
        let request = message.is_binding_request();
        let use_candidate = request && message.use_candidate();
        if request {
            self.learn_local(path.local, path.protocol)?;
            self.learn_source(path)?;
        }
        let packet = StunPacket {
            proto: protocol(path.protocol),
            source: path.remote,
            destination: path.local,
            message,
        };
        let agent = match &mut self.previous {
            Some(previous) if !is_current => previous,
            _ => &mut self.agent,
        };
        if !agent.handle_packet(now, packet) {
            return Err(DropReason::BadStun);
        }
        self.verify(now, path);
        if request && is_current && self.agent.remote_credentials().is_none() {
            self.waiting = (self.waiting + 1).min(MAX_WAITING_CHECKS);
        }
        // libwebrtc nominates to a lite agent only the pair it has selected.
        if self.lite && use_candidate {
            self.selection.nominate(now, path);
            if is_current {
                self.previous = None;
            }
        } else {
            self.heard(now, path, Sign::Check);
        }
        if !is_current {
            self.drain_previous(now, out);
        }
        self.progress(now, out);
        Ok(())
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Transmits) {
        if self.lite {
            return;
        }
        self.agent.handle_timeout(now);
        self.progress(now, out);
    }

    /// A lite agent only answers: the transport's own consent timer is all it needs.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        if self.lite || self.agent.remote_credentials().is_none() {
            return None;
        }
        self.agent.poll_timeout()
    }

    pub(super) fn is_verified(&self, now: Instant, path: NetPath) -> bool {
        let mut verified = self.verified.iter();
        verified.any(|verified| verified.path == path && now.saturating_duration_since(verified.heard) < PATH_LIFETIME)
    }

    /// Something authentic came on `path`. A full agent sends checks of its own to find out what is alive.
    pub(super) fn heard(&mut self, now: Instant, path: NetPath, sign: Sign) {
        if self.lite {
            self.selection.hear(now, path, sign);
        }
    }

    /// The selected path, else the one that was verified last.
    pub(super) fn path(&self) -> Option<NetPath> {
        self.selected().or_else(|| {
            let latest = self.verified.iter().max_by_key(|verified| verified.heard);
            latest.map(|verified| verified.path)
        })
    }

    /// The nominated path, or what stands in for it while it is silent.
    pub(super) fn selected(&self) -> Option<NetPath> {
        self.selection.path()
    }

    /// The password that messages of ours are proven with.
    pub(super) fn password(&self, proof: Proof) -> Option<&str> {
        let credentials = match proof {
            Proof::Ours => Some(self.agent.local_credentials()),
            Proof::Theirs => self.agent.remote_credentials(),
        };
        credentials.map(|credentials| credentials.pass.as_str())
    }

    /// Takes a path as verified, for good, and nominated, without a check.
    pub(super) fn inject_path(&mut self, now: Instant, path: NetPath) {
        const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        self.verify(now + A_YEAR, path);
        self.selection.nominate(now + A_YEAR, path);
    }

    /// Everything that the agent has to say after an input. It nominates only in `handle_timeout`, so that comes first.
    fn progress(&mut self, now: Instant, out: &mut Transmits) {
        self.drain(out);
        self.agent.handle_timeout(now);
        self.drain(out);
        while let Some(event) = self.agent.poll_event() {
            if let IceAgentEvent::NominatedSend {
                proto,
                source,
                destination,
            } = event
                && !self.lite
            {
                let path = self.path_of(source, destination, proto);
                self.selection.nominate(now, path);
            }
        }
    }

    /// What is said under the credentials of before: answers only.
    fn drain_previous(&mut self, now: Instant, out: &mut Transmits) {
        let Some(mut previous) = self.previous.take() else {
            return;
        };
        previous.handle_timeout(now);
        while let Some(transmit) = previous.poll_transmit() {
            let path = self.path_of(transmit.source, transmit.destination, transmit.proto);
            out.push(path, transmit.contents.into());
        }
        while previous.poll_event().is_some() {}
        self.previous = Some(previous);
    }

    fn drain(&mut self, out: &mut Transmits) {
        while let Some(transmit) = self.agent.poll_transmit() {
            let path = self.path_of(transmit.source, transmit.destination, transmit.proto);
            out.push(path, transmit.contents.into());
        }
    }

    /// What the agent takes for UDP may have come through our own relay, and then goes back through it.
    fn path_of(&self, local: std::net::SocketAddr, remote: std::net::SocketAddr, proto: Protocol) -> NetPath {
        let direct = NetPath {
            local,
            remote,
            protocol: net_protocol(proto),
        };
        let relayed = NetPath {
            protocol: NetProtocol::Turn,
            ..direct
        };
        let mut verified = self.verified.iter();
        if direct.protocol == NetProtocol::Udp && verified.any(|verified| verified.path == relayed) {
            relayed
        } else {
            direct
        }
    }

    fn verify(&mut self, now: Instant, path: NetPath) {
        if let Some(at) = self.verified.iter().position(|verified| verified.path == path) {
            // Most recent first: that is the one media arrives on.
            let mut verified = self.verified.remove(at);
            verified.heard = now;
            self.verified.insert(0, verified);
            return;
        }
        self.verified.truncate(MAX_VERIFIED_PATHS - 1);
        self.verified.insert(0, Verified { path, heard: now });
    }

    /// The agent refuses requests to addresses it was not told of; a wildcard socket learns its own as they come.
    fn learn_local(&mut self, address: std::net::SocketAddr, net: NetProtocol) -> Result<(), DropReason> {
        let net = if net == NetProtocol::Turn {
            NetProtocol::Udp
        } else {
            net
        };
        if self.locals.contains(&(address, net)) {
            return Ok(());
        }
        if self.locals.len() >= MAX_LOCAL_ADDRESSES {
            return Err(DropReason::UnknownPath);
        }
        let candidate = Candidate::host(address, protocol(net)).map_err(|_| DropReason::UnknownPath)?;
        self.locals.push((address, net));
        if let Some(previous) = &mut self.previous {
            previous.add_local_candidate(candidate.clone());
        }
        self.agent.add_local_candidate(candidate);
        Ok(())
    }

    fn learn_source(&mut self, path: NetPath) -> Result<(), DropReason> {
        if self.verified.iter().any(|verified| verified.path == path) {
            return Ok(());
        }
        if self.learned >= MAX_LEARNED_SOURCES {
            // A lite agent keeps no state worth having: it starts over under the same credentials. A full one would lose
            // its checks, and waits for a restart.
            let (true, Some(remote)) = (self.lite, self.agent.remote_credentials().cloned()) else {
                return Err(DropReason::UnknownPath);
            };
            let local = self.agent.local_credentials().clone();
            self.previous = None;
            self.agent.ice_restart(local, true);
            self.agent.set_remote_credentials(remote);
            self.learned = 0;
        }
        self.learned += 1;
        Ok(())
    }
}

fn agent(local: &IceCredentials, lite: bool, controlling: bool) -> IceAgent {
    let mut agent = IceAgent::new(credentials(local));
    agent.set_ice_lite(lite);
    // RFC 8445 §6.1.1: a lite agent is always controlled here, our peers being full.
    agent.set_controlling(controlling && !lite);
    agent.set_max_candidate_pairs(MAX_CANDIDATE_PAIRS);
    agent
}

fn credentials(credentials: &IceCredentials) -> IceCreds {
    IceCreds {
        ufrag: credentials.ufrag.clone(),
        pass: credentials.pwd.clone(),
    }
}

fn protocol(protocol: NetProtocol) -> Protocol {
    match protocol {
        // Our own relay brings datagrams; only we know that they came that way.
        NetProtocol::Udp | NetProtocol::Turn => Protocol::Udp,
        NetProtocol::Tcp => Protocol::Tcp,
    }
}

fn net_protocol(protocol: Protocol) -> NetProtocol {
    match protocol {
        Protocol::Udp => NetProtocol::Udp,
        _ => NetProtocol::Tcp,
    }
}
