//! Which header extensions are kept, per kind and direction.

use crate::sdp::{Direction, ExtMap, MediaSection};
use crate::types::{Extension, ExtensionMap, MediaKind};

/// Who sends on the m-line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    FromClient,
    ToClient,
}

fn is_wanted(extension: Extension, kind: MediaKind, flow: Flow) -> bool {
    let video = kind == MediaKind::Video;
    match extension {
        Extension::Mid | Extension::TransportCc | Extension::AbsSendTime | Extension::AbsCaptureTime => true,
        Extension::AudioLevel => !video,
        Extension::Rid | Extension::RepairedRid => video && flow == Flow::FromClient,
        Extension::DependencyDescriptor | Extension::PlayoutDelay | Extension::VideoOrientation => video,
        Extension::VideoLayersAllocation => video && flow == Flow::FromClient,
    }
}

/// libwebrtc offers on later m-lines of a kind only what the first one of it settled on, and fails on a simulcast m-line
/// without rid: so these are agreed on m-lines we send on too, where nobody writes them.
fn is_kept_for_later(extension: Extension, kind: MediaKind) -> bool {
    kind == MediaKind::Video
        && matches!(
            extension,
            Extension::Rid | Extension::RepairedRid | Extension::VideoLayersAllocation
        )
}

/// The extensions of an offered m-line that are used, with its ids, and the lines of the answer.
pub fn select(section: &MediaSection, kind: MediaKind, flow: Flow) -> (ExtensionMap, Vec<ExtMap>) {
    let transport_cc = usable(section, flow).any(|(extension, _)| extension == Extension::TransportCc);
    let mut agreed = ExtensionMap::default();
    let mut used = ExtensionMap::default();
    let mut lines = Vec::new();
    for (extension, line) in usable(section, flow) {
        // Eight bytes a packet that say nothing transport-wide feedback does not say better.
        let superseded = extension == Extension::AbsSendTime && flow == Flow::FromClient && transport_cc;
        let wanted = is_wanted(extension, kind, flow) && !superseded;
        if !wanted && !is_kept_for_later(extension, kind) {
            continue;
        }
        if agreed.id(extension).is_some() || agreed.extension(line.id).is_some() {
            continue;
        }
        agreed.insert(extension, line.id);
        if agreed.id(extension) != Some(line.id) {
            continue;
        }
        if wanted {
            used.insert(extension, line.id);
        }
        lines.push(ExtMap {
            direction: line.direction.map(Direction::reversed),
            ..line.clone()
        });
    }
    (used, lines)
}

fn usable(section: &MediaSection, flow: Flow) -> impl Iterator<Item = (Extension, &ExtMap)> {
    let fits = move |line: &&ExtMap| {
        let direction = line.direction.unwrap_or(Direction::SendRecv);
        match flow {
            Flow::FromClient => direction.sends(),
            Flow::ToClient => direction.receives(),
        }
    };
    section
        .extensions
        .iter()
        .filter(fits)
        .filter_map(|line| Some((Extension::from_uri(&line.uri)?, line)))
}

/// The ids of our own offers, the same on every m-line (RFC 8843 §9.2): the numbers Chromium offers.
pub fn offer_map(kind: MediaKind) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for extension in Extension::ALL
        .into_iter()
        .filter(|extension| is_wanted(*extension, kind, Flow::ToClient))
    {
        map.insert(extension, offer_id(extension));
    }
    map
}

fn offer_id(extension: Extension) -> u8 {
    match extension {
        Extension::AudioLevel => 1,
        Extension::AbsSendTime => 2,
        Extension::TransportCc => 3,
        Extension::Mid => 4,
        Extension::PlayoutDelay => 5,
        Extension::AbsCaptureTime => 6,
        Extension::VideoLayersAllocation => 9,
        Extension::Rid => 10,
        Extension::RepairedRid => 11,
        Extension::DependencyDescriptor => 12,
        Extension::VideoOrientation => 13,
    }
}

pub fn write(map: &ExtensionMap) -> Vec<ExtMap> {
    map.iter()
        .map(|(extension, id)| ExtMap {
            id,
            direction: None,
            uri: extension.uri().to_owned(),
        })
        .collect()
}

/// What of our offered `map` the client's answer keeps.
pub fn intersect_answer(map: &ExtensionMap, answer: &MediaSection) -> ExtensionMap {
    let mut kept = ExtensionMap::default();
    for (extension, line) in usable(answer, Flow::ToClient) {
        if map.id(extension) == Some(line.id) {
            kept.insert(extension, line.id);
        }
    }
    kept
}
