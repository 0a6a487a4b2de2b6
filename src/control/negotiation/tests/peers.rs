//! Against an independent implementation of offer and answer: str0m takes what we write, and we what it writes.

use std::time::Instant;

use str0m::Rtc;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind as TheirKind};

use super::*;

fn rtc() -> Rtc {
    Rtc::builder().build(Instant::now())
}

#[test]
fn str0m_accepts_our_answer() {
    let mut theirs = rtc();
    let mut change = theirs.sdp_api();
    change.add_media(TheirKind::Audio, Direction::SendOnly, None, None, None);
    change.add_media(TheirKind::Video, Direction::RecvOnly, None, None, None);
    change.add_channel("_reliable".to_owned());
    let (offer, waiting) = change.apply().expect("changes");
    let mut ours = peer(Role::Single);
    ours.add_sender(sender(1, MediaKind::Video));
    let answer = answer(&mut ours, &offer.to_sdp_string(), &[]);
    assert_eq!(answer.received.len(), 1);
    assert_eq!(answer.bound.len(), 1);
    let text = SdpAnswer::from_sdp_string(&answer.sdp).expect("a description str0m can read");
    theirs
        .sdp_api()
        .accept_answer(waiting, text)
        .expect("an answer str0m accepts");
}

#[test]
fn str0m_answers_our_offer() {
    let mut ours = peer(Role::Subscriber);
    ours.add_sender(sender(1, MediaKind::Audio));
    ours.add_sender(sender(2, MediaKind::Video));
    let mut theirs = rtc();
    for round in 0..3u64 {
        let offer = SdpOffer::from_sdp_string(&ours.create_offer(None).unwrap()).expect("an offer str0m can read");
        let answer = theirs.sdp_api().accept_offer(offer).expect("an offer str0m accepts");
        let outcome = ours.handle_answer(&answer.to_sdp_string()).expect("an answer");
        assert!(outcome.rejected.is_empty());
        assert_eq!(outcome.bound.len(), if round == 0 { 2 } else { 1 });
        ours.remove_sender(SubscriptionHandle(round + 2));
        ours.add_sender(sender(round + 3, MediaKind::Video));
    }
}
