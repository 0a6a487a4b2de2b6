//! What an offered m-line says about the RTP streams on it.

use crate::media::edge::EncodingParameters;
use crate::sdp::MediaSection;
use crate::types::{Rid, Ssrc};

/// Spatial layers that are forwarded (`Layer::spatial` is 0..=2); further encodings are not asked for.
pub const MAX_ENCODINGS: usize = 3;

/// Names that clients give to encodings, smallest picture first. `q h f` is LiveKit's.
const KNOWN_ORDERS: [&[&str]; 4] = [
    &["q", "h", "f"],
    &["l", "m", "h"],
    &["lo", "mid", "hi"],
    &["low", "medium", "high"],
];

/// The rids of a simulcast offer, in its own order; empty when it is none.
pub fn offered_rids(section: &MediaSection) -> Vec<Rid> {
    let sends = |rid: &Rid| section.rids.iter().any(|line| line.sends && line.rid == *rid);
    let listed: Vec<Rid> = if section.simulcast_send.is_empty() {
        section
            .rids
            .iter()
            .filter(|line| line.sends)
            .map(|line| line.rid)
            .collect()
    } else {
        section.simulcast_send.iter().copied().filter(sends).collect()
    };
    let mut distinct = Vec::new();
    for rid in listed {
        if !distinct.contains(&rid) && distinct.len() < MAX_ENCODINGS {
            distinct.push(rid);
        }
    }
    distinct
}

/// Smallest picture first: by the order AddTrack gave, else by a known naming, else as listed, which is how WebRTC
/// applications list encodings. (RFC 8853 §5.2 says most preferred first, which no client we know means as size.)
pub fn sort_rids(rids: &mut [Rid], announced: &[Rid]) {
    if rids.iter().all(|rid| announced.contains(rid)) {
        rids.sort_by_key(|rid| announced.iter().position(|name| name == rid));
        return;
    }
    for order in KNOWN_ORDERS {
        if rids.iter().all(|rid| order.contains(&rid.as_str())) {
            rids.sort_by_key(|rid| order.iter().position(|name| *name == rid.as_str()));
            return;
        }
    }
}

/// Smallest picture first, never empty.
pub fn encodings(section: &MediaSection, announced: &[Rid]) -> Vec<EncodingParameters> {
    let mut rids = offered_rids(section);
    if !rids.is_empty() {
        sort_rids(&mut rids, announced);
        let by_rid = |rid| EncodingParameters {
            rid: Some(rid),
            ..EncodingParameters::default()
        };
        return rids.into_iter().map(by_rid).collect();
    }
    let by_ssrc = ssrc_encodings(section);
    if by_ssrc.is_empty() {
        vec![EncodingParameters::default()]
    } else {
        by_ssrc
    }
}

/// From `a=ssrc` lines: SIM groups name simulcast streams smallest first, FID groups pair media and retransmission.
fn ssrc_encodings(section: &MediaSection) -> Vec<EncodingParameters> {
    let groups = |semantics: &'static str| {
        section
            .ssrc_groups
            .iter()
            .filter(move |group| group.semantics.eq_ignore_ascii_case(semantics))
    };
    let rtx_of = |ssrc: Ssrc| {
        groups("FID").find_map(|group| match group.ssrcs.as_slice() {
            [media, rtx, ..] if *media == ssrc && rtx != media => Some(*rtx),
            _ => None,
        })
    };
    // Every SSRC that only repairs another one.
    let repairs = |ssrc: Ssrc| {
        groups("FID")
            .chain(groups("FEC-FR"))
            .any(|group| group.ssrcs.iter().skip(1).any(|repair| *repair == ssrc))
    };
    let mut media: Vec<Ssrc> = groups("SIM")
        .next()
        .map(|group| group.ssrcs.clone())
        .unwrap_or_default();
    if media.is_empty() {
        // Without a SIM group there is one stream; further SSRCs would be other tracks of an old-style description.
        media.extend(section.ssrcs.iter().map(|line| line.ssrc).find(|ssrc| !repairs(*ssrc)));
    }
    let mut encodings: Vec<EncodingParameters> = Vec::new();
    for ssrc in media {
        let known = encodings.iter().any(|encoding| encoding.ssrc == Some(ssrc));
        if !known && encodings.len() < MAX_ENCODINGS {
            encodings.push(EncodingParameters {
                rid: None,
                ssrc: Some(ssrc),
                rtx_ssrc: rtx_of(ssrc),
            });
        }
    }
    encodings
}

/// The client's name of the track: the second word of `a=msid`, else of an SSRC's msid.
pub fn cid(section: &MediaSection) -> Option<String> {
    let from_ssrc = || {
        let line = section.ssrcs.iter().find(|line| line.name == "msid")?;
        line.value.split_ascii_whitespace().nth(1).map(str::to_owned)
    };
    section
        .msid
        .as_ref()
        .and_then(|msid| msid.track.clone())
        .or_else(from_ssrc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::SessionDescription;

    fn rids(names: &[&str]) -> Vec<Rid> {
        names.iter().map(|name| Rid::new(name).unwrap()).collect()
    }

    fn sorted(names: &[&str], announced: &[&str]) -> String {
        let mut sorted = rids(names);
        sort_rids(&mut sorted, &rids(announced));
        sorted.iter().map(|rid| rid.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn smallest_first() {
        assert_eq!(sorted(&["f", "h", "q"], &[]), "q h f");
        assert_eq!(sorted(&["h", "q"], &[]), "q h");
        assert_eq!(sorted(&["hi", "lo", "mid"], &[]), "lo mid hi");
        assert_eq!(sorted(&["2", "1", "0"], &[]), "2 1 0", "unknown names stay as listed");
        assert_eq!(
            sorted(&["f", "h", "q"], &["f", "h", "q"]),
            "f h q",
            "AddTrack knows better"
        );
        assert_eq!(sorted(&["f", "h", "q"], &["f"]), "q h f");
    }

    fn section(lines: &str) -> MediaSection {
        let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\n{lines}");
        SessionDescription::parse(&text).unwrap().media.remove(0)
    }

    #[test]
    fn at_most_three_distinct_ones() {
        let section = section(
            "a=rid:a send\na=rid:b send\na=rid:c send\na=rid:d send\na=rid:x recv\na=simulcast:send x;y;a;a;~b;c;d\n",
        );
        assert_eq!(offered_rids(&section), rids(&["a", "b", "c"]));
        assert_eq!(encodings(&section, &[]).len(), 3);
    }

    #[test]
    fn one_unnamed_encoding_when_nothing_is_said() {
        assert_eq!(encodings(&section(""), &[]), [EncodingParameters::default()]);
    }

    #[test]
    fn ssrcs_that_repair_are_not_streams() {
        let one = |lines: &str| {
            let encodings = encodings(&section(lines), &[]);
            assert_eq!(encodings.len(), 1);
            (
                encodings[0].ssrc.map(|ssrc| ssrc.0),
                encodings[0].rtx_ssrc.map(|ssrc| ssrc.0),
            )
        };
        assert_eq!(
            one("a=ssrc-group:FID 1 2\na=ssrc:2 cname:x\na=ssrc:1 cname:x\n"),
            (Some(1), Some(2))
        );
        assert_eq!(one("a=ssrc-group:FID 1 1\na=ssrc:1 cname:x\n"), (None, None));
        assert_eq!(
            one("a=ssrc-group:FEC-FR 1 3\na=ssrc:3 cname:x\na=ssrc:1 cname:x\n"),
            (Some(1), None)
        );
        assert_eq!(one("a=ssrc-group:SIM 1 1\n"), (Some(1), None));
    }
}
