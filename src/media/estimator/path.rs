//! The path to one receiver that sends transport-wide feedback: what it carries.
//!
//! Joins reports with departures and asks the others: `delivered` how much arrives, `trend` whether delay grows, `aimd`
//! and `loss` what follows, `probe` what lies beyond. No allocation once the history has grown.

use super::aimd::{Input, RateControl};
use super::delivered::{DeliveredRate, QueueDelay};
use super::history::SendHistory;
use super::loss::LossBound;
use super::probe::{Outcome, Probes};
use super::trend::{DelayTrend, Usage};
use super::{MIN_RATE, Micros};
use crate::rtp::rtcp::{ReferenceTimeExtender, TICKS_PER_REFERENCE, TransportFeedback};

/// Microseconds of a feedback tick.
const TICK: Micros = 250;
/// Before anything was measured.
const DEFAULT_RTT: Micros = 100_000;
const MAX_RTT: Micros = 3_000_000;
/// Packets that have waited this long behind others are a queue even when it does not grow: it may be full.
const STANDING_QUEUE: Micros = 70_000;
/// Packets that wait this long, and longer than those of the report before, need no trend where it shows how fast they
/// arrive: the path has become narrower. To it too the time of a packet is added.
const SUDDEN_QUEUE: Micros = 80_000;
/// Of a path that carries mostly what nobody reports on, little is known: it counts up to so many times the rest.
const MOST_BESIDE: f64 = 4.0;
/// Where too little arrives to tell how fast it does, so many times that must have been sent.
const STARVED: f64 = 2.0;
/// Decreases that leave such a queue as it is, after which it is taken for the path's own delay.
const MAX_VAIN: u8 = 3;
/// Probes wait for a queue to fall below this...
const QUIET_QUEUE: Micros = 50_000;
/// ...and so does growth. To all three the time of a packet is added.
const GROWTH_QUEUE: Micros = 30_000;
const PACKET_BITS: f64 = 9_600.0;
/// Weight of a packet in the mean of their sizes.
const SIZE_WEIGHT: f64 = 1.0 / 32.0;
/// What a full path has shown is used up to this part.
const SATURATED_PART: f64 = 0.95;
/// A probe alone lowers the estimate by no more than this: it may have been disturbed. Two in a row are believed.
const PROBE_LOWERS: f64 = 0.9;
/// While much less is sent than estimated, delay that grows is noise unless this much of it has come together, else a
/// fifth of that.
const NOISE_QUEUE: Micros = 50_000;
const PARTLY_USED: f64 = 0.8;
/// A fall to this part is worth looking for the path's return.
const FAR: f64 = 0.67;
/// One-way delays that differ by more belong to another clock.
const MAX_CLOCK_STEP: Micros = 10_000_000;
/// Feedback is missing while packets leave: the path may be gone. Receivers report every 50 to 250 ms.
const SILENCE: Micros = 1_500_000;
/// Then the estimate shrinks at this pace.
const SILENT_STEP: Micros = 500_000;
const SILENT_PART: f64 = 0.7;
/// Nothing has left for so long: nothing that was seen of queues is true any more, and no report will come by itself. Only
/// a probe shows what the path carries.
const IDLE: Micros = 1_000_000;
/// The smallest round trip of so long ago counts.
const RTT_WINDOW: Micros = 1_000_000;

/// A packet that a report has as received.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    departure: Micros,
    arrival: Micros,
    size: u16,
    cluster: u8,
    credited: bool,
}

#[derive(Debug)]
pub struct PathEstimate {
    pub history: SendHistory,
    delivered: DeliveredRate,
    /// What leaves, by the time it does.
    sent: DeliveredRate,
    /// The same of what nobody reports on: data packets and RTCP. It takes part of what the path carries.
    beside: DeliveredRate,
    queue: QueueDelay,
    trend: DelayTrend,
    control: RateControl,
    loss: LossBound,
    pub probes: Probes,
    reference: ReferenceTimeExtender,
    /// The number behind the highest that was reported on.
    reported: Option<u64>,
    /// `feedback_count` of the newest report.
    last_count: Option<u8>,
    /// The last report was the one after the report before it.
    is_gapless: bool,
    newest_departure: Micros,
    one_way: Option<Micros>,
    rtt: Micros,
    rtt_at: Micros,
    last_departure: Micros,
    /// Mean bits of a packet.
    packet: f64,
    /// The first packet that left after the last report.
    unanswered: Option<Micros>,
    silent_step: Micros,
    has_feedback: bool,
    vain: u8,
    standing: Micros,
    last_standing: Micros,
    /// `QueueDelay::prompt` of the last report.
    last_prompt: Micros,
    /// The rate before it began to fall.
    high: f64,
    /// What the last probe that filled the path has shown.
    filled: Option<f64>,
    is_first_probe: bool,
}

impl PathEstimate {
    pub fn new(first_sequence: u16, rate: f64) -> Self {
        Self {
            history: SendHistory::new(first_sequence),
            delivered: DeliveredRate::new(),
            sent: DeliveredRate::new(),
            beside: DeliveredRate::new(),
            queue: QueueDelay::new(),
            trend: DelayTrend::new(),
            control: RateControl::new(rate),
            loss: LossBound::new(),
            probes: Probes::new(),
            reference: ReferenceTimeExtender::new(),
            reported: None,
            last_count: None,
            is_gapless: false,
            newest_departure: 0,
            one_way: None,
            rtt: DEFAULT_RTT,
            rtt_at: -RTT_WINDOW,
            last_departure: 0,
            packet: PACKET_BITS,
            unanswered: None,
            silent_step: 0,
            has_feedback: false,
            vain: 0,
            standing: 0,
            last_standing: 0,
            last_prompt: 0,
            high: rate,
            filled: None,
            is_first_probe: true,
        }
    }

    /// Bits a second.
    pub fn rate(&self) -> f64 {
        let rate = self.control.rate();
        self.loss.bound().map_or(rate, |bound| rate.min(bound.max(MIN_RATE)))
    }

    pub fn has_feedback(&self) -> bool {
        self.has_feedback
    }

    pub fn rtt(&self) -> Micros {
        self.rtt
    }

    pub fn loss(&self) -> f64 {
        self.loss.loss()
    }

    pub fn queue_delay(&self) -> Micros {
        self.queue.get()
    }

    /// What lies between the packets of the last report and those of the one before was not received.
    pub fn is_gapless(&self) -> bool {
        self.is_gapless
    }

    pub fn delivered(&self) -> Option<f64> {
        self.delivered.rate()
    }

    /// The next number in turn has left.
    pub fn handle_sent(&mut self, now: Micros, size: u16) {
        let cluster = self.probes.handle_sent(now, size);
        self.history.record(now, size, cluster);
        self.last_departure = now;
        if cluster == 0 {
            self.packet += (f64::from(size) * 8.0 - self.packet) * SIZE_WEIGHT;
        }
        self.sent.add(now, u32::from(size));
        if self.unanswered.is_none() {
            self.unanswered = Some(now);
            self.silent_step = now + SILENCE;
        }
    }

    pub fn handle_beside(&mut self, now: Micros, size: u32) {
        self.beside.add(now, size);
    }

    /// `scratch` is emptied; it only keeps its memory between calls.
    pub fn handle_feedback(&mut self, now: Micros, feedback: &TransportFeedback<'_>, scratch: &mut Vec<Acknowledged>) {
        scratch.clear();
        let reference = self.reference.extend(feedback.reference_time) * TICKS_PER_REFERENCE;
        self.handle_count(feedback.feedback_count);
        self.handle_gap(now, feedback, reference * TICK);
        let mut newest = None;
        for status in feedback.statuses() {
            let Some(resolved) = self.history.resolve(now, status.sequence, status.arrival.is_some()) else {
                continue;
            };
            newest = newest.max(Some(resolved.departure));
            self.reported = self.reported.max(Some(resolved.sequence + 1));
            let Some(ticks) = status.arrival else {
                self.loss.handle_packet(resolved.departure, resolved.size, false);
                continue;
            };
            if resolved.revived {
                self.loss.handle_revived(resolved.size);
            } else {
                self.loss.handle_packet(resolved.departure, resolved.size, true);
            }
            scratch.push(Acknowledged {
                departure: resolved.departure,
                arrival: (reference + ticks) * TICK,
                size: resolved.size,
                cluster: resolved.cluster,
                credited: resolved.credited,
            });
        }
        let Some(newest) = newest else {
            return; // nothing in it was new
        };
        self.has_feedback = true;
        self.unanswered = None;
        self.newest_departure = self.newest_departure.max(newest);
        scratch.sort_unstable_by_key(|packet| packet.arrival);
        for packet in &*scratch {
            self.handle_arrival(packet);
        }
        if let Some(departure) = scratch.iter().map(|packet| packet.departure).max() {
            self.handle_round_trip(now, now - departure);
        }
        self.update(now);
    }

    fn handle_count(&mut self, count: u8) {
        let after = self.last_count.map(|last| count.wrapping_sub(last));
        self.is_gapless = after == Some(1);
        // A report that comes late says nothing of the ones after it.
        if after.is_none_or(|after| after.cast_signed() > 0) {
            self.last_count = Some(count);
        }
    }

    /// Packets before those of this report that no report has named. A receiver may begin a report with what it received
    /// first (str0m and pion do; libwebrtc begins where its last report ended): between a report and the next such packets
    /// are lost. Where reports are missing in between, they fared as their neighbours did.
    fn handle_gap(&mut self, now: Micros, feedback: &TransportFeedback<'_>, arrival: Micros) {
        let base = self.history.extend(feedback.base_sequence);
        let (Some(base), Some(reported)) = (base, self.reported) else {
            return;
        };
        if base <= reported {
            return;
        }
        if !self.is_gapless {
            let bytes = self.history.skip(reported, base);
            let passed = f64::from(bytes) * (1.0 - self.loss.loss());
            self.delivered.add(arrival, passed as u32);
            return;
        }
        for sequence in self.history.kept(reported)..base {
            if let Some(lost) = self.history.resolve(now, sequence as u16, false) {
                self.loss.handle_packet(lost.departure, lost.size, false);
            }
        }
    }

    fn handle_arrival(&mut self, packet: &Acknowledged) {
        let one_way = packet.arrival - packet.departure;
        let stepped = self.one_way.is_some_and(|last| (one_way - last).abs() > MAX_CLOCK_STEP);
        self.one_way = Some(one_way);
        if stepped {
            self.trend.reset();
            self.queue = QueueDelay::new();
            self.delivered = DeliveredRate::new();
        }
        self.queue.add(packet.departure, one_way);
        if !packet.credited {
            self.delivered.add(packet.arrival, u32::from(packet.size));
        }
        if packet.cluster != 0 {
            self.probes
                .handle_received(packet.cluster, packet.departure, packet.arrival, packet.size);
        }
        if self.probes.disturbs(packet.departure) {
            self.trend.interrupt();
        } else {
            self.trend.handle_packet(packet.departure, packet.arrival);
        }
    }

    fn handle_round_trip(&mut self, now: Micros, rtt: Micros) {
        let rtt = rtt.clamp(1_000, MAX_RTT);
        // A report waits for its turn: the smallest of a while is the path's.
        if rtt <= self.rtt || now - self.rtt_at > RTT_WINDOW {
            self.rtt = rtt;
            self.rtt_at = now;
        }
    }

    fn update(&mut self, now: Micros) {
        let (queue, prompt) = (self.queue.get(), self.queue.prompt());
        let waited = Some(prompt).filter(|prompt| *prompt >= SUDDEN_QUEUE + self.packet_time());
        let busy = waited.and_then(|waited| self.delivered.busy_rate(waited).or_else(|| self.starved(waited)));
        let grows = prompt > std::mem::replace(&mut self.last_prompt, prompt);
        let is_sudden = grows && busy.is_some();
        let whole = self.whole(now);
        let input = Input {
            delivered: self.delivered.rate().map(|rate| rate * whole),
            busy: busy.map(|busy| busy * whole),
            rtt: self.rtt,
            queue: if is_sudden { queue.max(prompt) } else { queue } - self.packet_time(),
        };
        let mut usage = self.trend.usage();
        let is_standing = usage != Usage::Over && self.is_standing(now, queue);
        if is_standing || is_sudden {
            usage = Usage::Over;
        } else if usage == Usage::Over && queue < self.noise() {
            usage = Usage::Under; // neither up nor down
        } else if usage == Usage::Normal && queue > GROWTH_QUEUE + self.packet_time() {
            usage = Usage::Under;
        }
        let before = self.rate();
        if self.control.update(now, usage, input) {
            self.high = self.high.max(before);
        }
        if let Some(outcome) = self
            .probes
            .take_outcome(now, self.newest_departure, self.control.rate())
        {
            self.handle_outcome(now, outcome);
        }
        self.loss.update(self.control.rate());
        let rate = self.rate();
        if rate < self.high * FAR {
            self.probes.recover(now);
            self.high = rate;
        } else if usage == Usage::Normal && rate > before {
            self.high = rate;
        }
        self.plan_probe(now);
    }

    /// How much more is sent than what is reported on, as a factor: the rest fares on the path as that does.
    fn whole(&mut self, now: Micros) -> f64 {
        self.beside.add(now, 0); // time has passed
        match (self.sent.rate(), self.beside.rate()) {
            (Some(sent), Some(beside)) if sent > 0.0 => (1.0 + beside / sent).min(MOST_BESIDE),
            _ => 1.0,
        }
    }

    /// Hardly anything has arrived in a time in which much was sent: at most so much does.
    fn starved(&self, waited: Micros) -> Option<f64> {
        let most = self.delivered.busy_below(waited);
        self.sent
            .busy_rate(waited)
            .filter(|sent| *sent > most * STARVED)
            .map(|_| most)
    }

    /// Delay that stays high without growing: the queue is full, or the path has got longer. The first needs us to send
    /// less, the second shows in that this does not help.
    fn is_standing(&mut self, now: Micros, queue: Micros) -> bool {
        if queue < STANDING_QUEUE + self.packet_time() {
            self.vain = 0;
            self.standing = queue;
            self.last_standing = now;
            return false;
        }
        let wait = self.rtt.max(STANDING_QUEUE) * 2;
        if now - self.last_standing < wait {
            return false;
        }
        let drains = queue < self.standing - self.standing / 10;
        self.last_standing = now;
        self.standing = queue;
        if drains {
            self.vain = 0;
            return false;
        }
        self.vain += 1;
        if self.vain > MAX_VAIN {
            self.vain = 0;
            self.queue.rebase();
            return false;
        }
        true
    }

    fn handle_outcome(&mut self, now: Micros, outcome: Outcome) {
        let rate = self.control.rate();
        if !outcome.saturated {
            self.filled = None;
            self.is_first_probe = false;
            self.loss.release(outcome.rate);
            self.control.set(now, outcome.rate.max(rate));
            return;
        }
        let shown = outcome.rate * SATURATED_PART;
        let before = self.filled.replace(shown);
        let least = if self.is_first_probe {
            0.0
        } else {
            before.unwrap_or(rate * PROBE_LOWERS)
        };
        self.is_first_probe = false;
        let delivered = self.delivered.rate().unwrap_or(0.0).min(rate) * SATURATED_PART;
        self.control.set(now, shown.max(least.min(rate)).max(delivered));
    }

    fn packet_time(&self) -> Micros {
        (self.packet * 1e6 / self.rate()) as Micros
    }

    /// Delay above which growth is believed.
    fn noise(&self) -> Micros {
        let delivered = self.delivered.rate().unwrap_or(0.0);
        if delivered < self.control.rate() * PARTLY_USED {
            NOISE_QUEUE
        } else {
            NOISE_QUEUE / 5
        }
    }

    fn plan_probe(&mut self, now: Micros) {
        let rate = self.rate();
        let quiet = QUIET_QUEUE + self.packet_time();
        let is_idle = self.has_feedback && now - self.last_departure >= IDLE;
        let is_quiet =
            self.trend.usage() != Usage::Over && self.queue.get() < quiet && self.unanswered_for(now) < SILENCE;
        self.probes.plan(now, rate, is_quiet || is_idle);
        if is_idle && self.probes.wanted().is_some() {
            // What comes back is compared with nothing from before.
            self.trend.reset();
        }
    }

    fn unanswered_for(&self, now: Micros) -> Micros {
        self.unanswered.map_or(0, |since| now - since)
    }

    pub fn handle_timeout(&mut self, now: Micros) {
        if self.has_feedback && self.unanswered_for(now) >= SILENCE && now >= self.silent_step {
            self.silent_step = now + SILENT_STEP;
            let rate = self.control.rate() * SILENT_PART;
            self.control.set(now, rate);
            self.probes.recover(now);
        }
        self.plan_probe(now);
    }

    /// When `handle_timeout` has something to do.
    pub fn poll_timeout(&self) -> Option<Micros> {
        let silence = self.unanswered.map(|_| self.silent_step);
        let idle = self
            .probes
            .due(self.rate())
            .map(|at| at.max(self.last_departure + IDLE));
        let by_feedback = [silence, idle].into_iter().flatten().filter(|_| self.has_feedback);
        by_feedback.chain(self.probes.poll_timeout()).min()
    }
}
