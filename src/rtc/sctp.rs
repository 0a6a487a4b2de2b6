//! Data channels: one SCTP association (`sctp-proto`) over the transport's DTLS session, and the channels opened on it by
//! DCEP (RFC 8831, RFC 8832).
//!
//! Owns the association, the table of channels and both buffer limits. Driven by the transport with what DTLS decrypted;
//! what it wants to send goes back the same way. Never interprets a message.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};
use thiserror::Error;

use super::dcep::{self, DcepMessage, Reliability};
use super::transport::TransportEvent;
use crate::types::{ChannelLabel, DropReason, DtlsRole, SCTP_RECEIVE_WINDOW, SctpInit};

/// A data channel of one transport: its SCTP stream id. May be used again after `ChannelClosed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub u16);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendDataError {
    /// The channel's send buffer is full. `ChannelWritable` follows once half of it is free.
    #[error("the channel's send buffer is full")]
    Full,
    /// Not open yet, or no more.
    #[error("the channel is not open")]
    Closed,
    /// Larger than the peer takes (`a=max-message-size`), or than `MAX_SEND_MESSAGE_SIZE`.
    #[error("the message is too large for the peer")]
    TooLarge,
}

/// The largest message that is taken, for `a=max-message-size`. A whole message has to fit into the window beside the
/// parts of the next one, or the association would fail.
pub const MAX_RECEIVE_MESSAGE_SIZE: u32 = 100 * 1024;
/// The largest message that is sent: a received one with what the server stamps on it.
pub const MAX_SEND_MESSAGE_SIZE: u32 = 128 * 1024;
/// Unacknowledged bytes per channel, and of all channels together; beyond that a send says `Full`.
const CHANNEL_SEND_BUFFER: usize = 128 * 1024;
const SEND_BUFFER: usize = 256 * 1024;
/// Channels of one transport. LiveKit's clients open three; more are reset.
const MAX_CHANNELS: usize = 32;
/// Stream ids are given out from the lowest free one (RFC 8832 §6). A packet for a higher one is dropped: each id that is
/// used costs the engine memory.
const MAX_STREAM_ID: u16 = 256;
/// DATA chunks that wait to be read or completed. The window counts payload bytes only, so a peer that sends one-byte
/// messages or fragments would otherwise fill it with two hundred times its size in bookkeeping. At the limit the packet
/// is dropped while a channel is not read, which its retransmission repairs; else the association ends.
const MAX_HELD_CHUNKS: usize = 2048;
/// Packets with data that wait until the owner of the path lets them leave; the newest is dropped, as a full link would.
const MAX_HELD_PACKETS: usize = 64;
/// SCTP packets leave in DTLS records of at most 1200 bytes: 48 for the record, 40 for SCTP's own headers.
const MAX_PAYLOAD: u32 = 1200 - 48 - 40;
/// Above the peer's delayed acknowledgement (200 ms), below the engine's one second; the figures of libwebrtc.
const RTO_MIN_MS: u64 = 400;
const RTO_INITIAL_MS: u64 = 500;
const RTO_MAX_MS: u64 = 10_000;

/// The association ended: aborted or shut down by the peer, or broken by it beyond repair.
pub(super) struct AssociationLost;

pub(super) struct Sctp {
    endpoint: Endpoint,
    transport_config: Arc<TransportConfig>,
    association: Option<(AssociationHandle, Association)>,
    /// RFC 8832 §6: the DTLS client opens even streams, the server odd ones. We also start the association as client.
    role: DtlsRole,
    established: bool,
    /// Both know each other's first chunk already.
    init: Option<SctpInit>,
    max_send_message: u32,
    channels: Vec<Channel>,
    to_open: Vec<ChannelLabel>,
    /// See `MAX_HELD_CHUNKS`. Set right whenever an acknowledgement says that nothing is held.
    held_chunks: usize,
    overrun: bool,
    /// Bytes of data that may leave, below zero where the last packet was larger; None = all. Acknowledgements and the like
    /// always may.
    allowance: Option<i64>,
    held: VecDeque<Bytes>,
    /// Packets that found no place there since this was last asked.
    refused: u64,
}

struct Channel {
    id: u16,
    label: Option<ChannelLabel>,
    /// False until the peer has acknowledged a channel that we opened.
    open: bool,
    reading: bool,
    /// A send was refused; the owner waits for `ChannelWritable`.
    full: bool,
}

impl Sctp {
    /// `peer_max_message` from `a=max-message-size`, 0 = no limit (RFC 8841 §6.1).
    pub(super) fn new(
        role: DtlsRole,
        peer_max_message: u32,
        to_open: Vec<ChannelLabel>,
        init: Option<SctpInit>,
    ) -> Self {
        let transport_config = Arc::new(
            TransportConfig::default()
                .with_max_init_retransmits(None)
                .with_max_data_retransmits(None)
                .with_max_receive_buffer_size(SCTP_RECEIVE_WINDOW)
                .with_max_receive_message_size(MAX_RECEIVE_MESSAGE_SIZE)
                .with_rto_initial_ms(RTO_INITIAL_MS)
                .with_rto_min_ms(RTO_MIN_MS)
                .with_rto_max_ms(RTO_MAX_MS),
        );
        let mut endpoint_config = EndpointConfig::new();
        endpoint_config.max_payload_size(MAX_PAYLOAD);
        let mut server_config = ServerConfig::new();
        server_config.transport = transport_config.clone();
        Self {
            endpoint: Endpoint::new(Arc::new(endpoint_config), Some(Arc::new(server_config))),
            transport_config,
            association: None,
            role,
            established: false,
            init,
            max_send_message: match peer_max_message {
                0 => MAX_SEND_MESSAGE_SIZE,
                limit => limit.min(MAX_SEND_MESSAGE_SIZE),
            },
            channels: Vec::new(),
            to_open,
            held_chunks: 0,
            overrun: false,
            allowance: None,
            held: VecDeque::new(),
            refused: 0,
        }
    }

    /// Lets so many bytes of data leave with the next `poll_transmit`, the last packet whole, and those alone; None = all, from
    /// now on. Returns what is left of the last ones.
    pub(super) fn set_allowance(&mut self, allowance: Option<i64>) -> Option<i64> {
        std::mem::replace(&mut self.allowance, allowance)
    }

    /// Packets dropped since the last call because too many wait (`MAX_HELD_PACKETS`); SCTP sends them again.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.allowance.is_some()
    }

    /// Data waits for an allowance.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Once DTLS is up. A DTLS server waits for the peer's INIT, unless the descriptions have brought it.
    pub(super) fn start(&mut self) {
        let init = self.init.take();
        if (self.role == DtlsRole::Active || init.is_some()) && self.association.is_none() {
            let mut config = ClientConfig::new();
            config.transport = self.transport_config.clone();
            if let Some(SctpInit { local, remote }) = init {
                config = config.with_snap(local.into(), remote.into());
            }
            if let Ok(association) = self.endpoint.connect(config, fake_peer()) {
                self.association = Some(association);
                self.endpoint.reject_new_associations();
            }
        }
    }

    pub(super) fn handle(&mut self, now: Instant, packet: &[u8]) -> Result<(), DropReason> {
        let chunks = data_chunks(packet)?;
        if chunks > 0 && self.held_chunks + chunks > MAX_HELD_CHUNKS {
            self.overrun = self.channels.iter().all(|channel| channel.reading);
            return Err(DropReason::QueueFull);
        }
        self.held_chunks += chunks;
        let packet = Bytes::copy_from_slice(packet);
        match self.endpoint.handle(now, fake_peer(), None, None, packet) {
            None => Err(DropReason::BadSctp),
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // There is one association (RFC 8831 §6.2): a second INIT under another tag neither replaces it nor is
                // remembered.
                if self.association.is_none() {
                    self.association = Some((handle, association));
                }
                self.endpoint.reject_new_associations();
                Ok(())
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => match &mut self.association {
                Some((ours, association)) if *ours == handle => {
                    association.handle_event(event);
                    Ok(())
                }
                _ => Err(DropReason::BadSctp),
            },
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.association
            .as_ref()
            .and_then(|(_, association)| association.poll_timeout())
    }

    /// Turns what the association reports into transport events. Call after every input; `poll_transmit` follows.
    pub(super) fn progress(&mut self, events: &mut VecDeque<TransportEvent>) -> Result<(), AssociationLost> {
        loop {
            let Some((handle, association)) = &mut self.association else {
                return Ok(());
            };
            while let Some(event) = association.poll_endpoint_event() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    association.handle_event(event);
                }
            }
            while association.accept_stream().is_some() {}
            let Some(event) = association.poll() else {
                break;
            };
            match event {
                Event::Connected => {
                    association.set_max_send_message_size(self.max_send_message);
                    self.established = true;
                    self.open_channels();
                }
                Event::AssociationLost { .. } | Event::HandshakeFailed { .. } => return Err(AssociationLost),
                Event::Stream(StreamEvent::Readable { id }) => self.read(id, events),
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    self.forget(id, events);
                }
                _ => {}
            }
        }
        if self.overrun {
            return Err(AssociationLost);
        }
        self.report_writable(events);
        Ok(())
    }

    /// SCTP packets to send, each in one DTLS record: data as far as it may leave.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Vec<Bytes> {
        let mut packets = Vec::new();
        let mut take = |transmit: sctp_proto::Transmit| {
            if let Payload::RawEncode(contents) = transmit.payload {
                packets.extend(contents);
            }
        };
        while let Some(transmit) = self.endpoint.poll_transmit() {
            take(transmit);
        }
        if let Some((_, association)) = &mut self.association {
            while let Some(transmit) = association.poll_transmit(now) {
                take(transmit);
            }
        }
        if packets.iter().any(|packet| acknowledges_all(packet)) {
            self.held_chunks = 0;
        }
        if self.allowance.is_none() && self.held.is_empty() {
            return packets;
        }
        for packet in packets.extract_if(.., |packet| data_chunks(packet) != Ok(0)) {
            // What waits longer than the engine does is sent again by it.
            let first = first_number(&packet);
            let is_copy = self.held.iter().any(|held| first_number(held) == first);
            if is_copy {
                continue;
            }
            if self.held.len() < MAX_HELD_PACKETS {
                self.held.push_back(packet);
            } else {
                self.refused += 1;
            }
        }
        while self.allowance.is_none_or(|left| left > 0)
            && let Some(packet) = self.held.pop_front()
        {
            self.allowance = self.allowance.map(|left| left - packet.len() as i64);
            packets.push(packet);
        }
        packets
    }

    pub(super) fn send(&mut self, id: ChannelId, binary: bool, data: &[u8]) -> Result<(), SendDataError> {
        if !self.channels.iter().any(|channel| channel.id == id.0 && channel.open) {
            return Err(SendDataError::Closed);
        }
        if data.len() > self.max_send_message as usize {
            return Err(SendDataError::TooLarge);
        }
        let buffered = self.buffered_amount(id);
        // A single message of any permitted size fits into an empty buffer.
        if (buffered > 0 && buffered + data.len() > CHANNEL_SEND_BUFFER) || self.buffered() + data.len() > SEND_BUFFER {
            self.channels
                .iter_mut()
                .filter(|channel| channel.id == id.0)
                .for_each(|channel| channel.full = true);
            return Err(SendDataError::Full);
        }
        // RFC 8831 §6.6: SCTP has no empty messages, so one byte stands for them.
        let (kind, data) = match (binary, data.is_empty()) {
            (true, true) => (PayloadProtocolIdentifier::BinaryEmpty, &[0u8][..]),
            (true, false) => (PayloadProtocolIdentifier::Binary, data),
            (false, true) => (PayloadProtocolIdentifier::StringEmpty, &[0u8][..]),
            (false, false) => (PayloadProtocolIdentifier::String, data),
        };
        let (_, association) = self.association.as_mut().ok_or(SendDataError::Closed)?;
        let mut stream = association.stream(id.0).map_err(|_| SendDataError::Closed)?;
        stream.write_with_ppi(data, kind).map_err(|_| SendDataError::Closed)?;
        Ok(())
    }

    /// Bytes of one channel that the peer has not acknowledged.
    pub(super) fn buffered_amount(&mut self, id: ChannelId) -> usize {
        let stream = self
            .association
            .as_mut()
            .and_then(|(_, association)| association.stream(id.0).ok());
        stream.and_then(|stream| stream.buffered_amount().ok()).unwrap_or(0)
    }

    fn buffered(&mut self) -> usize {
        let Some((_, association)) = &mut self.association else {
            return 0;
        };
        let amount = |channel: &Channel| association.stream(channel.id).ok()?.buffered_amount().ok();
        self.channels.iter().filter_map(amount).sum()
    }

    pub(super) fn set_reading(&mut self, id: ChannelId, reading: bool, events: &mut VecDeque<TransportEvent>) {
        for channel in self.channels.iter_mut().filter(|channel| channel.id == id.0) {
            channel.reading = reading;
        }
        if reading {
            self.read(id.0, events);
        }
    }

    fn open_channels(&mut self) {
        let mut id = match self.role {
            DtlsRole::Active => 0,
            DtlsRole::Passive => 1,
        };
        let Some((_, association)) = &mut self.association else {
            return;
        };
        for label in std::mem::take(&mut self.to_open) {
            let message = dcep::open_message(label);
            let DcepMessage::Open {
                ordered, reliability, ..
            } = message
            else {
                continue;
            };
            let Ok(mut stream) = association.open_stream(id, PayloadProtocolIdentifier::Unknown) else {
                continue;
            };
            let (kind, value) = reliability_parameters(reliability);
            if stream.set_reliability_params(!ordered, kind, value).is_ok()
                && stream
                    .write_with_ppi(&message.to_bytes(), PayloadProtocolIdentifier::Dcep)
                    .is_ok()
            {
                self.channels.push(Channel {
                    id,
                    label: Some(label),
                    open: false,
                    reading: true,
                    full: false,
                });
            }
            id += 2;
        }
    }

    /// Reads all complete messages of a stream, unless its channel is not being read.
    fn read(&mut self, id: u16, events: &mut VecDeque<TransportEvent>) {
        loop {
            if self.channels.iter().any(|channel| channel.id == id && !channel.reading) {
                return;
            }
            let Some((_, association)) = &mut self.association else {
                return;
            };
            let Ok(mut stream) = association.stream(id) else {
                return;
            };
            let Ok(Some(mut message)) = stream.read_sctp() else {
                return;
            };
            self.held_chunks = self.held_chunks.saturating_sub(message.chunks.len());
            let kind = message.ppi;
            let length = message.len();
            let data = message.next(length).map(|whole| whole.bytes).unwrap_or_default();
            match kind {
                PayloadProtocolIdentifier::Dcep => self.read_dcep(id, &data, events),
                PayloadProtocolIdentifier::String => self.received(id, false, data, events),
                PayloadProtocolIdentifier::Binary => self.received(id, true, data, events),
                PayloadProtocolIdentifier::StringEmpty => self.received(id, false, Bytes::new(), events),
                PayloadProtocolIdentifier::BinaryEmpty => self.received(id, true, Bytes::new(), events),
                // RFC 8831 §6.6 knows no others (the deprecated partial ones are in nobody's use).
                PayloadProtocolIdentifier::Unknown => {}
            }
        }
    }

    fn read_dcep(&mut self, id: u16, message: &[u8], events: &mut VecDeque<TransportEvent>) {
        match DcepMessage::parse(message) {
            Some(DcepMessage::Open {
                ordered,
                reliability,
                label,
            }) => {
                let known = self.channels.iter().any(|channel| channel.id == id);
                if known || self.channels.len() >= MAX_CHANNELS {
                    return self.reset(id, events);
                }
                let Some(mut stream) = self.association.as_mut().and_then(|(_, it)| it.stream(id).ok()) else {
                    return;
                };
                // RFC 8832 §6: what the opener asks for holds in both directions.
                let (kind, value) = reliability_parameters(reliability);
                let _ = stream.set_reliability_params(!ordered, kind, value);
                let _ = stream.write_with_ppi(&DcepMessage::Ack.to_bytes(), PayloadProtocolIdentifier::Dcep);
                let label = dcep::known_label(label);
                self.channels.push(Channel {
                    id,
                    label,
                    open: true,
                    reading: true,
                    full: false,
                });
                events.push_back(TransportEvent::ChannelOpen {
                    channel: ChannelId(id),
                    label,
                });
            }
            Some(DcepMessage::Ack) => self.acknowledged(id, events),
            None => self.reset(id, events),
        }
    }

    fn acknowledged(&mut self, id: u16, events: &mut VecDeque<TransportEvent>) {
        for channel in self
            .channels
            .iter_mut()
            .filter(|channel| channel.id == id && !channel.open)
        {
            channel.open = true;
            events.push_back(TransportEvent::ChannelOpen {
                channel: ChannelId(id),
                label: channel.label,
            });
        }
    }

    fn received(&mut self, id: u16, binary: bool, data: Bytes, events: &mut VecDeque<TransportEvent>) {
        // Data on an unordered channel may overtake the acknowledgement, and proves as much.
        self.acknowledged(id, events);
        if self.channels.iter().any(|channel| channel.id == id) {
            events.push_back(TransportEvent::ChannelData {
                channel: ChannelId(id),
                binary,
                data,
            });
        }
    }

    /// Closes a stream from our side (RFC 8831 §6.7).
    fn reset(&mut self, id: u16, events: &mut VecDeque<TransportEvent>) {
        if let Some(mut stream) = self.association.as_mut().and_then(|(_, it)| it.stream(id).ok()) {
            let _ = stream.close();
        }
        self.forget(id, events);
    }

    fn forget(&mut self, id: u16, events: &mut VecDeque<TransportEvent>) {
        if let Some(at) = self.channels.iter().position(|channel| channel.id == id) {
            let channel = self.channels.remove(at);
            if channel.open {
                events.push_back(TransportEvent::ChannelClosed { channel: ChannelId(id) });
            }
        }
    }

    fn report_writable(&mut self, events: &mut VecDeque<TransportEvent>) {
        if !self.channels.iter().any(|channel| channel.full) || self.buffered() > SEND_BUFFER / 2 {
            return;
        }
        let Some((_, association)) = &mut self.association else {
            return;
        };
        for channel in self.channels.iter_mut().filter(|channel| channel.full) {
            let amount = association
                .stream(channel.id)
                .ok()
                .and_then(|stream| stream.buffered_amount().ok());
            if amount.unwrap_or(0) <= CHANNEL_SEND_BUFFER / 2 {
                channel.full = false;
                events.push_back(TransportEvent::ChannelWritable {
                    channel: ChannelId(channel.id),
                });
            }
        }
    }
}

fn reliability_parameters(reliability: Reliability) -> (ReliabilityType, u32) {
    match reliability {
        Reliability::Reliable => (ReliabilityType::Reliable, 0),
        Reliability::MaxRetransmits(times) => (ReliabilityType::Rexmit, times),
        Reliability::MaxLifetime(milliseconds) => (ReliabilityType::Timed, milliseconds),
    }
}

/// The engine was made for UDP and wants an address; below DTLS there is none.
fn fake_peer() -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 5000))
}

/// The number of DATA chunks in a packet (RFC 9260 §3.3.1), refusing stream ids that are out of bounds.
fn data_chunks(packet: &[u8]) -> Result<usize, DropReason> {
    const DATA: u8 = 0;
    let mut count = 0;
    for chunk in chunks(packet) {
        let chunk = chunk?;
        if chunk.first() == Some(&DATA) {
            count += 1;
            if chunk.get(8..10).ok_or(DropReason::BadSctp)? >= MAX_STREAM_ID.to_be_bytes().as_slice() {
                return Err(DropReason::BadSctp);
            }
        }
    }
    Ok(count)
}

/// The transmission sequence number of the first DATA chunk (RFC 9260 §3.3.1).
fn first_number(packet: &[u8]) -> Option<&[u8]> {
    const DATA: u8 = 0;
    let data = chunks(packet)
        .filter_map(Result::ok)
        .find(|chunk| chunk.first() == Some(&DATA));
    data?.get(4..8)
}

/// Whether one of our packets advertises the whole window (SACK, RFC 9260 §3.3.4): then nothing is held.
fn acknowledges_all(packet: &[u8]) -> bool {
    const SACK: u8 = 3;
    let whole = SCTP_RECEIVE_WINDOW.to_be_bytes();
    chunks(packet)
        .any(|chunk| chunk.is_ok_and(|chunk| chunk.first() == Some(&SACK) && chunk.get(8..12) == Some(&whole)))
}

/// The chunks of a packet, headers included (RFC 9260 §3.2).
fn chunks(packet: &[u8]) -> impl Iterator<Item = Result<&[u8], DropReason>> {
    const COMMON_HEADER: usize = 12;
    let mut rest = packet.get(COMMON_HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[_, _, high, low], _) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(chunk) = rest.get(..length).filter(|_| length >= 4) else {
            rest = &[];
            return Some(Err(DropReason::BadSctp));
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(chunk))
    })
}

#[cfg(test)]
mod tests;
