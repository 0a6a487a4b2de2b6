//! What a viewer of 720p cameras gets over links of different kinds: layers, gaps, use of the link.

use crate::{
    call::{Call, link},
    network::Measures,
    seeds::{at_most, ms, over_seeds},
};

const TOP: u8 = 2;

#[test]
fn clean_link() {
    over_seeds("clean 10 Mbit/s, 40 ms of round trip", |seed| {
        let mut call = Call::new(seed, 1, link(10_000_000));
        call.run(30.0);
        let top = call.until(0, call.from, |shown| shown.tag.encoding == TOP);
        let down = &call.world.links[call.viewer].down;
        vec![
            at_most("top layer, ms", ms(top), 2000.0),
            at_most("longest gap, ms", ms(call.longest_gap(0, None)), 200.0),
            // One camera has 1.7 Mbit/s; what is beyond are probes and headers.
            at_most("sent, kbit/s", down.throughput(call.from..call.now()) / 1000.0, 4000.0),
            call.numbers(0),
        ]
    });
}

#[test]
fn the_top_layer_pauses() {
    over_seeds("the publisher's top layer stops for 20 s", |seed| {
        let mut call = Call::new(seed, 1, link(10_000_000));
        call.run(10.0);
        let publisher = call.cameras[0].publisher;
        let stopped = call.now();
        call.world.peers[publisher].outgoing[2].active = false;
        call.run(20.0);
        let returned = call.now();
        call.world.peers[publisher].outgoing[2].active = true;
        call.run(10.0);
        let top = call.until(0, returned, |shown| shown.tag.encoding == TOP);
        let middle = call.until(0, stopped, |shown| shown.tag.encoding < TOP);
        vec![
            at_most("a lower layer, ms", ms(middle), 700.0),
            at_most("longest gap, ms", ms(call.longest_gap(0, Some(stopped))), 700.0),
            at_most("top layer again, ms", ms(top), 2000.0),
            call.numbers(0),
        ]
    });
}
