//! A path that loses packets, and whose receiver reports on each: what is sent again unasked, how often, and for how much.

use super::repair::nack;
use super::world::*;
use crate::media::send_queue::{RepairBudget, SendQueue};
use crate::types::{DropReason, Pt, Ssrc};

/// Alice's camera on its way to Bob.
struct Path {
    world: World,
    alice: usize,
    bob: usize,
    ssrc: Ssrc,
    /// The publisher's.
    next: u16,
    /// Numbers of first copies, as Bob sees them.
    media: Vec<u16>,
    /// Originals of what came again.
    copies: Vec<u16>,
    /// By transport-wide number from `first` on: in 250 us, None = lost.
    arrivals: Vec<Option<i64>>,
    first: Option<u16>,
    reports: u8,
    /// Every so many-th first copy is lost; 0 = none.
    loses: usize,
    loses_copies: bool,
}

impl Path {
    fn new() -> Self {
        let mut world = World::new();
        let (alice, bob) = (world.join(), world.join());
        let track = world.publish_video(alice, "1", &[]);
        let ssrc = Ssrc(world.subscribe(bob, track).0 as u32);
        Self {
            world,
            alice,
            bob,
            ssrc,
            next: 0,
            media: Vec::new(),
            copies: Vec::new(),
            arrivals: Vec::new(),
            first: None,
            reports: 0,
            loses: 0,
            loses_copies: false,
        }
    }

    /// A path that has lost a share of its packets for two seconds, all of which Bob has in the end.
    fn losing_every(nth: usize) -> Self {
        let mut path = Self::new();
        path.loses = nth;
        path.film(60);
        path.loses = 0;
        path.film(5);
        path.report();
        path.copies.clear();
        path
    }

    fn waiting(&mut self) -> &mut SendQueue {
        let mut transports = self.world.shard.transports.iter_mut();
        let its = transports.find(|(_, transport)| !transport.sending.is_empty());
        &mut its.unwrap().1.waiting
    }

    /// Nothing may be sent again.
    fn spend_budget(&mut self) {
        let budget = &mut self.waiting().budget;
        while budget.take(100, 0.0, 0.0) {}
    }

    fn collect(&mut self) {
        let at = (self.world.now - self.world.start).as_micros() as i64 / 250 + 100;
        for got in self.world.take(self.bob) {
            let packet = got.rtp();
            let number = crate::rtp::extension::transport_cc(packet.extension(3).unwrap()).unwrap();
            let first = *self.first.get_or_insert(number);
            assert_eq!(usize::from(number.wrapping_sub(first)), self.arrivals.len());
            let is_copy = packet.pt() == Pt(101);
            let is_lost = if is_copy {
                let original = packet.payload().first_chunk().copied().unwrap();
                self.copies.push(u16::from_be_bytes(original));
                self.loses_copies
            } else {
                self.media.push(packet.sequence());
                self.loses > 0 && self.media.len().is_multiple_of(self.loses)
            };
            self.arrivals.push((!is_lost).then_some(at));
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.world.pass(1);
            self.collect();
        }
    }

    /// One picture of one packet; its number.
    fn picture(&mut self, temporal: u8, size: usize) -> u16 {
        let mut payload = vp8(self.next == 0, true, self.next, size);
        payload[5] |= temporal << 6;
        self.world.video(self.alice, 7, self.next, "", &payload);
        self.next += 1;
        self.world.deliver();
        self.collect();
        *self.media.last().unwrap()
    }

    /// Thirty pictures a second, a report for every third.
    fn film(&mut self, pictures: u16) {
        for at in 0..pictures {
            self.picture(0, 500);
            self.pass(33);
            if at % 3 == 2 {
                self.report();
            }
        }
    }

    fn report(&mut self) {
        let Some(first) = self.first.take() else { return };
        let (arrivals, reports, ssrc) = (std::mem::take(&mut self.arrivals), self.reports, self.ssrc);
        self.world.send_rtcp(self.bob, |writer| {
            writer
                .transport_feedback(Ssrc(9), ssrc, first, reports, &arrivals)
                .map(|written| assert_eq!(written, arrivals.len()))
        });
        self.reports = self.reports.wrapping_add(1);
        self.world.deliver();
        self.collect();
    }

    /// A report is lost.
    fn lose_report(&mut self) {
        self.leave_out();
        self.reports = self.reports.wrapping_add(1);
    }

    /// The next report begins with what comes after this.
    fn leave_out(&mut self) {
        self.arrivals.clear();
        self.first = None;
    }

    fn ask(&mut self, number: u16) {
        let ssrc = self.ssrc;
        self.world
            .send_rtcp(self.bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(number)));
        self.world.deliver();
        self.collect();
    }

    fn copies(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.copies)
    }
}

#[test]
fn what_is_sent_again_has_a_budget_and_what_nobody_asked_for_half_of_it() {
    let mut path = Path::new();
    for _ in 0..80 {
        path.picture(0, 1000);
        path.pass(10);
    }
    let asked: Vec<u16> = path.media.clone();
    asked[..40].iter().for_each(|number| path.ask(*number));
    path.pass(100);
    assert_eq!(path.copies().len(), 40);
    // The end of this picture is not worth what others may ask for.
    path.picture(0, 1000);
    path.pass(200);
    assert_eq!((path.copies().len(), path.world.dropped(DropReason::RtxBudget)), (0, 1));
    asked[40..].iter().for_each(|number| path.ask(*number));
    path.pass(300);
    // 64 KiB at most, of packets of 1,060 bytes.
    let copies = path.copies().len();
    assert!((15..25).contains(&copies), "{copies}");
    assert_eq!(path.world.dropped(DropReason::RtxBudget), 1 + 40 - copies as u64);
}

#[test]
fn what_there_was_no_budget_for_is_sent_when_there_is() {
    let mut path = Path::losing_every(10);
    path.spend_budget();
    path.loses = 1;
    let lost = path.picture(1, 500);
    path.loses = 0;
    path.pass(33);
    path.picture(1, 500);
    path.report();
    assert_eq!((path.copies(), path.world.dropped(DropReason::RtxBudget)), (vec![], 1));
    // Nobody asks for it.
    path.waiting().budget = RepairBudget::default();
    path.picture(1, 500);
    path.pass(33);
    path.report();
    assert_eq!(path.copies(), [lost]);
    path.picture(1, 500);
    path.pass(33);
    path.report();
    assert!(path.copies().is_empty(), "once");
}

#[test]
fn on_a_path_that_loses_much_each_try_in_vain_is_followed_by_one_copy_more() {
    // At a tenth one is enough; at a quarter one more is saved up for what all later pictures refer to.
    for (nth, temporal, copies) in [(10, 1, [1, 1, 1]), (4, 1, [1, 2, 3]), (4, 0, [2, 2, 3])] {
        let mut path = Path::losing_every(nth);
        let budget = &mut path.waiting().budget;
        budget.earn(1_000_000);
        (path.loses, path.loses_copies) = (1, true);
        let lost = path.picture(temporal, 500);
        path.loses = 0;
        for copies in copies {
            path.pass(33);
            path.picture(1, 500); // else the lost one is the end of what was sent
            path.report();
            path.pass(20);
            assert_eq!(
                path.copies(),
                vec![lost; copies],
                "every {nth}th lost, layer {temporal}"
            );
        }
    }
}

#[test]
fn a_copy_is_followed_by_another_when_its_report_is_lost() {
    let mut path = Path::losing_every(10);
    path.waiting().budget = RepairBudget::default();
    let asked = path.picture(1, 500);
    path.pass(33);
    path.report();
    path.ask(asked);
    path.pass(33);
    assert_eq!(path.copies(), [asked]);
    path.lose_report();
    path.picture(1, 500);
    path.pass(33);
    path.report();
    assert_eq!(path.copies(), [asked]);
}

#[test]
fn what_is_left_out_between_two_reports_is_lost_and_where_one_is_missing_it_is_not_known() {
    for (is_missing, expected) in [(false, 1), (true, 0)] {
        let mut path = Path::losing_every(10);
        path.waiting().budget = RepairBudget::default();
        let lost = path.picture(0, 500);
        if is_missing {
            path.lose_report();
        } else {
            path.leave_out();
        }
        path.picture(1, 500);
        path.pass(33);
        path.report();
        assert_eq!(path.copies(), vec![lost; expected]);
    }
}

#[test]
fn the_end_of_a_picture_that_was_reported_on_is_not_sent_again() {
    let mut path = Path::losing_every(10);
    path.picture(0, 500);
    path.pass(33);
    path.report();
    path.pass(500);
    assert!(path.copies().is_empty());
    let last = path.picture(0, 500);
    path.pass(500);
    assert_eq!(path.copies(), [last]);
}
