//! `TrackInfo`, from what AddTrack announces to what the first packets show.

use livekit_protocol::video_layer::Mode;
use livekit_protocol::{AddTrackRequest, AudioTrackFeature, SimulcastCodec, SimulcastCodecInfo, TrackInfo, VideoLayer};

use crate::types::{Codec, MediaKind, Rid, Ssrc, TrackId};

use super::negotiation::{PendingCodec, PendingTrack};
use super::publication::{Publication, PublishedCodec, backup_policy, default_stream};
use super::settings::{MAX_CODECS, MAX_LAYERS, MAX_SHORT_TEXT};

/// `AudioTrackFeature` has fewer values; what is more is not one of them.
pub(super) const MAX_FEATURES: usize = 16;

/// What AddTrack announces: the info clients are shown, and the codecs to expect.
pub(super) fn describe(
    sid: &TrackId,
    kind: MediaKind,
    request: &AddTrackRequest,
    enabled: &[Codec],
) -> (TrackInfo, Vec<PublishedCodec>) {
    let layers = sorted_layers(&request.layers);
    let mut declared: Vec<SimulcastCodec> = request
        .simulcast_codecs
        .iter()
        .filter(|codec| codec.cid.len() <= MAX_SHORT_TEXT)
        .take(MAX_CODECS)
        .cloned()
        .collect();
    if declared.is_empty() {
        declared.push(SimulcastCodec {
            cid: request.cid.clone(),
            ..Default::default()
        });
    }
    let mut codecs = Vec::new();
    let mut infos = Vec::new();
    for simulcast in declared {
        let codec = Codec::parse(&simulcast.codec).map(|codec| allowed_codec(codec, kind, enabled));
        if codecs
            .iter()
            .any(|known: &PublishedCodec| known.codec.is_some() && known.codec == codec)
        {
            continue;
        }
        infos.push(codec_info(codec, &simulcast, &layers));
        codecs.push(PublishedCodec {
            cid: simulcast.cid,
            codec,
            seen: None,
            shapes: Default::default(),
            bound: None,
        });
    }
    if let Some(primary) = codecs.first_mut()
        && primary.cid.is_empty()
    {
        primary.cid.clone_from(&request.cid);
    }
    let svc = codecs.first().and_then(|codec| codec.codec).is_some_and(is_svc);
    let stream = match request.stream.as_str() {
        "" => default_stream(request.source()),
        stream => stream,
    };
    let stereo = request.stereo || request.audio_features.contains(&(AudioTrackFeature::TfStereo as i32));
    let disable_dtx = request.disable_dtx || request.audio_features.contains(&(AudioTrackFeature::TfNoDtx as i32));
    let info = TrackInfo {
        sid: sid.0.clone(),
        r#type: request.r#type,
        name: request.name.clone(),
        muted: request.muted,
        width: request.width,
        height: request.height,
        simulcast: kind == MediaKind::Video && !svc && layers.len() > 1,
        disable_dtx,
        source: request.source,
        layers,
        codecs: infos,
        stereo,
        disable_red: request.disable_red,
        encryption: request.encryption,
        stream: stream.to_owned(),
        audio_features: request.audio_features.iter().copied().take(MAX_FEATURES).collect(),
        backup_codec_policy: backup_policy(kind, request.backup_codec_policy),
        packet_trailer_features: request
            .packet_trailer_features
            .iter()
            .copied()
            .take(MAX_FEATURES)
            .collect(),
        ..Default::default()
    };
    (info, codecs)
}

/// LiveKit: a codec the room does not allow is replaced by the first one it does; the client reads it in `TrackInfo`.
fn allowed_codec(codec: Codec, kind: MediaKind, enabled: &[Codec]) -> Codec {
    if enabled.contains(&codec) {
        return codec;
    }
    enabled
        .iter()
        .copied()
        .find(|enabled| enabled.kind() == kind)
        .unwrap_or(codec)
}

fn is_svc(codec: Codec) -> bool {
    matches!(codec, Codec::Vp9 | Codec::Av1)
}

/// LOW to HIGH.
fn sorted_layers(layers: &[VideoLayer]) -> Vec<VideoLayer> {
    let mut layers: Vec<VideoLayer> = layers.iter().take(MAX_LAYERS).cloned().collect();
    layers.sort_by_key(|layer| layer.quality);
    for layer in &mut layers {
        if Rid::new(&layer.rid).is_none() {
            layer.rid.clear();
        }
    }
    layers
}

pub(super) fn codec_info(
    codec: Option<Codec>,
    simulcast: &SimulcastCodec,
    layers: &[VideoLayer],
) -> SimulcastCodecInfo {
    let mode = match simulcast.video_layer_mode() {
        Mode::Unused if codec.is_some_and(is_svc) => Mode::MultipleSpatialLayersPerStream,
        Mode::Unused => Mode::OneSpatialLayerPerStream,
        mode => mode,
    };
    SimulcastCodecInfo {
        mime_type: codec
            .map(|codec| codec.mime_type().to_ascii_lowercase())
            .unwrap_or_default(),
        cid: simulcast.cid.clone(),
        layers: match simulcast.layers.is_empty() {
            true => layers.to_vec(),
            false => sorted_layers(&simulcast.layers),
        },
        video_layer_mode: mode as i32,
        ..Default::default()
    }
}

pub(super) fn pending_track(publication: &Publication) -> Option<PendingTrack> {
    let waiting = publication
        .codecs
        .iter()
        .filter(|codec| codec.bound.is_none() && !codec.cid.is_empty());
    let first = waiting.clone().next()?;
    let info = &publication.info;
    Some(PendingTrack {
        cid: first.cid.clone(),
        kind: publication.kind,
        codecs: waiting
            .filter_map(|codec| {
                Some(PendingCodec {
                    cid: codec.cid.clone(),
                    codec: codec.codec?,
                })
            })
            .collect(),
        codec: first.codec,
        red: !info.disable_red && !publication.is_encrypted(),
        dtx: !info.disable_dtx,
        stereo: info.stereo,
        rids: info.layers.iter().filter_map(|layer| Rid::new(&layer.rid)).collect(),
    })
}

/// Fills what negotiation or the first packet has shown of one codec.
pub(super) fn complete_info(publication: &mut Publication, index: usize, codec: Option<Codec>) {
    let Some(bound) = publication.codecs.get(index).and_then(|codec| codec.bound.as_ref()) else {
        return;
    };
    let encodings = bound.encodings.clone();
    let mime_type = codec.map(Codec::mime_type);
    let complete = |layers: &mut Vec<VideoLayer>| {
        for (spatial, layer) in (0i32..).zip(layers.iter_mut()) {
            layer.spatial_layer = spatial;
        }
        for (layer, encoding) in layers.iter_mut().zip(&encodings) {
            if let Some(rid) = encoding.rid {
                layer.rid = rid.to_string();
            }
            if let Some(ssrc) = encoding.ssrc {
                layer.ssrc = ssrc.0;
            }
        }
    };
    if let Some(shown) = publication.info.codecs.get_mut(index) {
        complete(&mut shown.layers);
        if let Some(mime_type) = &mime_type {
            shown.mime_type.clone_from(mime_type);
        }
    }
    if index == 0 {
        complete(&mut publication.info.layers);
        if let Some(mime_type) = mime_type {
            publication.info.mime_type = mime_type;
        }
    }
}

pub(super) fn set_layer_ssrc(publication: &mut Publication, index: usize, encoding: usize, ssrc: Ssrc) {
    let set = |layers: &mut Vec<VideoLayer>| {
        if let Some(layer) = layers.get_mut(encoding) {
            layer.ssrc = ssrc.0;
        }
    };
    if let Some(shown) = publication.info.codecs.get_mut(index) {
        set(&mut shown.layers);
    }
    if index == 0 {
        set(&mut publication.info.layers);
    }
}
