use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Three layers at `fps`, of which those with a bit in `sent` come; looked at every 50 ms. When `update` first gives
/// `want`, in milliseconds.
fn until(flow: &mut Flow, now: &mut Instant, fps: u64, sent: u8, key: bool, want: u8) -> Option<u64> {
    let start = *now;
    let mut first = true;
    for passed in 0..5000 {
        *now = start + ms(passed);
        if passed % (1000 / fps) == 0 {
            for at in (0..3).filter(|at| sent >> at & 1 == 1) {
                flow.handle_packet(at, true, first && key, *now);
            }
            first = false;
        }
        if passed % 50 == 0 && flow.update(*now) == want {
            return Some(passed);
        }
    }
    None
}

#[test]
fn a_stop_is_seen_within_300_ms_and_the_return_soon_after_its_key_frame() {
    for fps in [15, 24, 30, 60] {
        let mut now = Instant::now();
        let mut flow = Flow::default();
        assert_eq!(until(&mut flow, &mut now, fps, 0b111, true, 0b111), Some(0), "at once");
        until(&mut flow, &mut now, fps, 0b111, false, 0);
        now += ms(1);
        let stop = until(&mut flow, &mut now, fps, 0b011, false, 0b011).unwrap();
        // Its last frame came up to one interval before.
        assert!(stop <= 300, "{fps} fps: {stop}");
        let back = until(&mut flow, &mut now, fps, 0b111, true, 0b111).unwrap();
        assert!((200..=300).contains(&back), "{fps} fps: {back}");
        until(&mut flow, &mut now, fps, 0b001, false, 0b001).unwrap();
        let back = until(&mut flow, &mut now, fps, 0b011, false, 0b011).unwrap();
        assert!((500..=600).contains(&back), "without a key frame, {fps} fps: {back}");
    }
}

#[test]
fn silence_of_all_says_nothing() {
    let mut now = Instant::now();
    let mut flow = Flow::default();
    until(&mut flow, &mut now, 30, 0b111, true, 0b111).unwrap();
    assert_eq!(until(&mut flow, &mut now, 30, 0, false, 0b1000), None);
    assert_eq!(flow.update(now), 0b111);
    // A screen share of a frame a second: each layer comes once in a while, none has stopped.
    assert_eq!(until(&mut flow, &mut now, 1, 0b111, false, 0b011), None);
    until(&mut flow, &mut now, 30, 0b011, false, 0b011).unwrap();
    flow.pause();
    assert_eq!(until(&mut flow, &mut now, 30, 0, false, 0b1000), None);
    assert_eq!(flow.update(now), 0b011, "as it was before a mute");
    assert_eq!(
        until(&mut flow, &mut now, 30, 0b111, false, 0b111),
        Some(0),
        "what comes after it is there at once"
    );
    flow.pause();
    now += ms(10_000);
    let stop = until(&mut flow, &mut now, 30, 0b001, false, 0b001).unwrap();
    assert!((200..=300).contains(&stop), "what does not come is missed: {stop}");
}

#[test]
fn a_layer_that_comes_and_goes_is_waited_for_longer_each_time() {
    let mut now = Instant::now();
    let mut flow = Flow::default();
    until(&mut flow, &mut now, 20, 0b111, true, 0b111).unwrap();
    let (mut stops, mut returns) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        stops.push(until(&mut flow, &mut now, 20, 0b101, false, 0b101).unwrap());
        now += ms(1);
        returns.push(until(&mut flow, &mut now, 20, 0b111, true, 0b111).unwrap_or(5000));
    }
    assert!(
        stops[1] <= 300 && stops[2] >= 600,
        "not left for a few frames any more: {stops:?}"
    );
    assert!((200..=300).contains(&returns[0]), "{returns:?}");
    assert!((1000..=1100).contains(&returns[1]), "{returns:?}");
    assert_eq!(returns[2], 5000, "{returns:?}");
    // A while of calm is enough to forget it.
    (0..13).for_each(|_| assert_eq!(until(&mut flow, &mut now, 20, 0b111, false, 0b1000), None));
    until(&mut flow, &mut now, 20, 0b101, false, 0b101).unwrap();
    now += ms(1);
    let back = until(&mut flow, &mut now, 20, 0b111, true, 0b111).unwrap();
    assert!((200..=300).contains(&back), "{back}");
    // One that was told to stop is back as soon as ever.
    for _ in 0..3 {
        assert_eq!(until(&mut flow, &mut now, 20, 0b101, false, 0b1000), None);
        let back = until(&mut flow, &mut now, 20, 0b111, true, 0b111).unwrap();
        assert!((200..=300).contains(&back), "{back}");
    }
}

#[test]
fn an_announcement_is_believed_at_once() {
    let mut now = Instant::now();
    let mut flow = Flow::default();
    until(&mut flow, &mut now, 30, 0b111, true, 0b111).unwrap();
    flow.announce(2, false);
    assert_eq!(flow.update(now), 0b011);
    flow.announce(2, true);
    assert_eq!(flow.update(now), 0b111);
    let stop = until(&mut flow, &mut now, 30, 0b011, false, 0b011).unwrap();
    assert!(stop <= 300, "but not against what is seen: {stop}");
}
