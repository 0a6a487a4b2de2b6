use proptest::prelude::*;

use super::*;

/// Assembles a descriptor from readable groups of bits.
fn bytes(groups: &[&str]) -> Vec<u8> {
    let bits: Vec<u8> = groups
        .concat()
        .bytes()
        .filter(|bit| *bit != b' ')
        .map(|bit| bit - b'0')
        .collect();
    bits.chunks(8)
        .map(|chunk| {
            chunk
                .iter()
                .enumerate()
                .fold(0, |byte, (at, bit)| byte | bit << (7 - at))
        })
        .collect()
}

/// L2T2 in miniature: four templates, two decode targets, one chain, two resolutions; template ids from 60 up, so that
/// they wrap.
fn structure_bits() -> String {
    let layers = "01 10 01 11"; // (0,0) (0,1) (1,0) (1,1)
    let dtis = "1010 0001 0010 0001"; // target 0: 2 0 0 0, target 1: 2 1 2 1
    let fdiffs = "0  1 0011 0  1 0000 1 0001 0  0";
    let chains = "10 0000 0001 0010 0011"; // one chain: ns(3) of 1 is 10; protected_by needs no bits for one chain
    let resolutions = "1  0000001001111111 0000000101100111  0000010011111111 0000001011001111";
    format!("111100 00001 {layers} {dtis} {fdiffs} {chains} {resolutions}")
}

fn key_frame() -> Vec<u8> {
    bytes(&["1 0 111100 0000000100000010", "1 0 0 0 0", &structure_bits()])
}

/// The descriptor and the structure it brings.
fn parse(value: &[u8], known: Option<&Structure>) -> Result<(Descriptor, Option<Structure>), DropReason> {
    let mut new = None;
    let descriptor = Descriptor::parse(value, known, &mut new)?;
    Ok((descriptor, new))
}

fn structure() -> Structure {
    parse(&key_frame(), None).unwrap().1.unwrap()
}

#[test]
fn a_key_frame_brings_its_structure() {
    let (descriptor, structure) = parse(&key_frame(), None).unwrap();
    assert!(descriptor.start && !descriptor.end);
    assert_eq!((descriptor.template_id, descriptor.frame_number), (60, 0x0102));
    assert_eq!(descriptor.active_decode_targets, Some(0b11));
    assert_eq!(descriptor.resolution, Some((640, 360)));
    let structure = structure.unwrap();
    let layers: Vec<_> = structure
        .templates()
        .iter()
        .map(|template| (template.spatial, template.temporal))
        .collect();
    assert_eq!(layers, [(0, 0), (0, 1), (1, 0), (1, 1)]);
    assert_eq!(structure.target_layers[..2], [(0, 0), (1, 1)]);
    assert_eq!(structure.templates()[2].frame_diffs.iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(structure.templates()[3].chain_diffs[0], 3);
    assert_eq!((structure.chains, structure.resolutions()[1]), (1, (1280, 720)));
    let info = descriptor.frame_info();
    assert!(info.keyframe && info.switch_point);
    assert_eq!(info.dimensions, Some((1280, 720)));
}

#[test]
fn later_packets_name_a_template() {
    let structure = structure();
    // Template ids wrap at 64: 60 + 3 is the last of them.
    let packet = bytes(&["1 1 111111 0000000000000111"]);
    let (descriptor, new) = parse(&packet, Some(&structure)).unwrap();
    assert_eq!(
        (descriptor.spatial, descriptor.temporal, descriptor.frame_number),
        (1, 1, 7)
    );
    assert_eq!(descriptor.indications.of(0), Indication::NotPresent);
    assert_eq!(descriptor.indications.of(1), Indication::Discardable);
    assert_eq!((descriptor.active_decode_targets, new), (None, None));
    let info = descriptor.frame_info();
    assert!(!info.keyframe && info.start && info.end && !info.switch_point);

    assert_eq!(parse(&packet, None), Err(DropReason::AwaitingKeyframe));
    let unknown = bytes(&["1 1 000000 0000000000000111"]);
    assert_eq!(parse(&unknown, Some(&structure)), Err(DropReason::Malformed));
    assert_eq!(parse(&packet[..2], Some(&structure)), Err(DropReason::Truncated));
}

#[test]
fn custom_fields_replace_the_template() {
    let structure = structure();
    let packet = bytes(&[
        "0 1 111101 0000000000001000",
        "0 1 1 1 1",
        "01",
        "11 10",
        "01 0100 10 00010000 00",
        "00001001",
    ]);
    let (descriptor, _) = parse(&packet, Some(&structure)).unwrap();
    assert_eq!(descriptor.active_decode_targets, Some(1));
    assert_eq!(
        (descriptor.indications.of(0), descriptor.indications.of(1)),
        (Indication::Required, Indication::Switch)
    );
    assert_eq!(descriptor.frame_diffs.iter().collect::<Vec<_>>(), [5, 17]);
    assert_eq!(descriptor.chain_diffs[0], 9);
    assert!(descriptor.frame_info().switch_point);
}

#[test]
fn the_active_targets_are_inserted_or_replaced() {
    let structure = structure();
    let packets = [
        key_frame(),
        bytes(&["1 1 111101 0000000000001000"]),
        bytes(&[
            "1 1 111101 0000000000001000",
            "0 1 1 1 1",
            "01",
            "11 10",
            "01 0100 10 00010000 00",
            "00001001",
        ]),
        bytes(&["1 1 111110 0000000000001000", "0 0 0 1 0", "01 0100 00"]),
    ];
    for packet in packets {
        let mut out = [0xff; 64];
        let len = write_active_decode_targets(&packet, Some(&structure), 0b10, &mut out).unwrap();
        assert!(len <= packet.len() + 5);
        let (before, structure_before) = parse(&packet, Some(&structure)).unwrap();
        let (after, structure_after) = parse(&out[..len], Some(&structure)).unwrap();
        assert_eq!(
            after,
            Descriptor {
                active_decode_targets: Some(0b10),
                ..before
            }
        );
        assert_eq!(structure_before, structure_after);
        let result = write_active_decode_targets(&packet, Some(&structure), 0b10, &mut [0; 3]);
        assert_eq!(result, Err(DropReason::TooLarge));
    }
}

#[test]
fn the_frame_number_is_patched_in_place() {
    let mut packet = key_frame();
    patch_frame_number(&mut packet, 0xbeef);
    assert_eq!(parse(&packet, None).unwrap().0.frame_number, 0xbeef);
    patch_frame_number(&mut [0; 2], 1);
}

#[test]
fn a_truncated_structure_is_malformed() {
    let packet = key_frame();
    for len in 4..packet.len() {
        assert!(parse(&packet[..len], None).is_err(), "{len}");
    }
}

#[test]
fn indications_beyond_the_targets_are_absent() {
    assert_eq!(Indications(u64::MAX).of(31), Indication::Required);
    assert_eq!(Indications(u64::MAX).of(32), Indication::NotPresent);
    assert!(!Indications(u64::MAX).any_switch());
    assert!(Indications(2 << 62).any_switch());
}

proptest! {
    #[test]
    fn any_bytes(mut value in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u8..3, mask in any::<u32>()) {
        if kind > 0 && let Some(flags) = value.get_mut(3) {
            *flags = (*flags & 0x7f) | (kind & 1) << 7;
        }
        let structure = structure();
        if let Ok((descriptor, new)) = parse(&value, Some(&structure)) {
            let _ = descriptor.frame_info();
            let mut out = [0; 140];
            let len = write_active_decode_targets(&value, Some(&structure), mask, &mut out).unwrap();
            let (again, newer) = parse(&out[..len], Some(&structure)).unwrap();
            prop_assert_eq!(again.frame_diffs, descriptor.frame_diffs);
            prop_assert_eq!(newer, new);
        }
    }
}
