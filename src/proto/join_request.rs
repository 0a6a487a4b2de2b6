//! What a client asks for when it connects, from either form: the `join_request` parameter of `/rtc/v1` (single
//! connection) or the separate query parameters of `/rtc` (dual). Texts of errors are LiveKit's: clients show them.

use std::collections::HashMap;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use prost::Message;

use super::livekit::client_info::{Capability, Sdk};
use super::livekit::wrapped_join_request::Compression;
use super::livekit::{
    AddTrackRequest, ClientInfo, JoinRequest, ReconnectReason, SessionDescription, SyncState, WrappedJoinRequest,
};

/// LiveKit's limit on a decompressed join request (Go's default for a header), in bytes.
pub const MAX_JOIN_REQUEST: usize = 1 << 20;

/// The body of the 400 response is the `Display` text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRequestError {
    #[error("join_request is required")]
    Missing,
    #[error("cannot base64 decode wrapped join request")]
    Base64,
    #[error("cannot unmarshal wrapped join request")]
    Wrapper,
    #[error("cannot read decompressed join request")]
    Gzip,
    #[error("join request too large")]
    TooLarge,
    #[error("cannot unmarshal join request")]
    Request,
}

/// Everything a client may say at connect. Fields that a form cannot carry are at their defaults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinParameters {
    /// True for the `join_request` form: one peer connection, the client offers.
    pub single_connection: bool,
    pub client_info: ClientInfo,
    pub auto_subscribe: bool,
    pub auto_subscribe_data_track: bool,
    pub adaptive_stream: bool,
    /// None = as configured (`rtc.congestion_control.allow_pause`).
    pub subscriber_allow_pause: Option<bool>,
    pub disable_ice_lite: bool,
    /// A resume of the session `participant_sid`.
    pub reconnect: bool,
    pub reconnect_reason: ReconnectReason,
    pub participant_sid: String,
    /// `publish=<id>`: a second, publish-only connection of the same identity.
    pub publish: Option<String>,
    /// Overwrites the token's when not empty; needs `canUpdateOwnMetadata`.
    pub metadata: String,
    /// Merged over the token's; needs `canUpdateOwnMetadata`. Empty values are left out already.
    pub attributes: HashMap<String, String>,
    /// The `attributes` parameter was there but not readable: `validate` refuses it, a connection ignores it.
    pub attributes_malformed: bool,
    pub add_track_requests: Vec<AddTrackRequest>,
    pub publisher_offer: Option<SessionDescription>,
    pub sync_state: Option<SyncState>,
}

impl JoinParameters {
    /// From the pairs of a query string, already percent-decoded. `join_request_required` is true on `/rtc/v1`; on
    /// `/rtc` the parameter is honoured when it is there. The first of several pairs of one name counts.
    pub fn from_query<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        join_request_required: bool,
    ) -> Result<Self, JoinRequestError> {
        let mut query = HashMap::new();
        for (name, value) in pairs {
            query.entry(name).or_insert(value);
        }
        match query.get("join_request").filter(|text| !text.is_empty()) {
            Some(text) => Ok(Self::from_join_request(decode_join_request(text)?)),
            None if join_request_required => Err(JoinRequestError::Missing),
            None => Ok(Self::from_parameters(&query)),
        }
    }

    pub fn from_join_request(request: JoinRequest) -> Self {
        let settings = request.connection_settings.unwrap_or_default();
        Self {
            single_connection: true,
            client_info: request.client_info.unwrap_or_default(),
            auto_subscribe: settings.auto_subscribe,
            auto_subscribe_data_track: settings.auto_subscribe_data_track.unwrap_or(false),
            adaptive_stream: settings.adaptive_stream,
            // LiveKit takes an unset field for `false`; here it means the configured default, as in the other form.
            subscriber_allow_pause: settings.subscriber_allow_pause,
            disable_ice_lite: settings.disable_ice_lite,
            reconnect: request.reconnect,
            reconnect_reason: ReconnectReason::try_from(request.reconnect_reason).unwrap_or_default(),
            participant_sid: request.participant_sid,
            publish: None,
            metadata: request.metadata,
            attributes: without_empty(request.participant_attributes),
            attributes_malformed: false,
            add_track_requests: request.add_track_requests,
            publisher_offer: request.publisher_offer,
            sync_state: request.sync_state,
        }
    }

    fn from_parameters(query: &HashMap<&str, &str>) -> Self {
        let text = |name: &str| query.get(name).copied().filter(|value| !value.is_empty());
        let flag = |name: &str| text(name).map(is_true);
        let attributes = text("attributes").map(decode_attributes);
        let reconnect = flag("reconnect").unwrap_or(false);
        Self {
            single_connection: false,
            client_info: client_info_from_query(query),
            auto_subscribe: flag("auto_subscribe").unwrap_or(true),
            auto_subscribe_data_track: flag("auto_subscribe_data_track").unwrap_or(false),
            adaptive_stream: flag("adaptive_stream").unwrap_or(false),
            subscriber_allow_pause: flag("subscriber_allow_pause"),
            disable_ice_lite: flag("disable_ice_lite").unwrap_or(false),
            reconnect,
            reconnect_reason: text("reconnect_reason")
                .and_then(|number| number.parse::<i32>().ok())
                .and_then(|number| ReconnectReason::try_from(number).ok())
                .unwrap_or_default(),
            participant_sid: text("sid").filter(|_| reconnect).unwrap_or_default().to_owned(),
            publish: text("publish").map(str::to_owned),
            attributes_malformed: attributes.as_ref().is_some_and(Option::is_none),
            attributes: attributes.flatten().unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Padded base64url of a `WrappedJoinRequest`. LiveKit: Go's decoder wants the padding and refuses `+` and `/`.
pub fn decode_join_request(text: &str) -> Result<JoinRequest, JoinRequestError> {
    let wrapped = URL_SAFE.decode(text).map_err(|_| JoinRequestError::Base64)?;
    let wrapped = WrappedJoinRequest::decode(wrapped.as_slice()).map_err(|_| JoinRequestError::Wrapper)?;
    let bytes = match Compression::try_from(wrapped.compression) {
        Ok(Compression::None) if wrapped.join_request.len() > MAX_JOIN_REQUEST => {
            return Err(JoinRequestError::TooLarge);
        }
        Ok(Compression::None) => wrapped.join_request,
        Ok(Compression::Gzip) => gunzip(&wrapped.join_request)?,
        // LiveKit: an unknown compression is an empty request, not an error.
        Err(_) => Vec::new(),
    };
    JoinRequest::decode(bytes.as_slice()).map_err(|_| JoinRequestError::Request)
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, JoinRequestError> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .take(MAX_JOIN_REQUEST as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|_| JoinRequestError::Gzip)?;
    if out.len() > MAX_JOIN_REQUEST {
        return Err(JoinRequestError::TooLarge);
    }
    Ok(out)
}

/// LiveKit: only these two texts are true, everything else is false.
fn is_true(text: &str) -> bool {
    text == "1" || text == "true"
}

fn without_empty(mut attributes: HashMap<String, String>) -> HashMap<String, String> {
    attributes.retain(|_, value| !value.is_empty());
    attributes
}

fn decode_attributes(text: &str) -> Option<HashMap<String, String>> {
    let json = URL_SAFE.decode(text).ok()?;
    serde_json::from_slice(&json).ok().map(without_empty)
}

fn client_info_from_query(query: &HashMap<&str, &str>) -> ClientInfo {
    let text = |name: &str| query.get(name).copied().unwrap_or_default().to_owned();
    let number = |name: &str| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    ClientInfo {
        sdk: sdk_from_query(query.get("sdk").copied().unwrap_or_default()) as i32,
        version: text("version"),
        protocol: number("protocol"),
        client_protocol: number("client_protocol"),
        os: text("os"),
        os_version: text("os_version"),
        device_model: text("device_model"),
        browser: text("browser"),
        browser_version: text("browser_version"),
        network: text("network"),
        capabilities: query
            .get("capabilities")
            .into_iter()
            .flat_map(|list| list.split(','))
            .filter_map(|name| Capability::from_str_name(name.trim()))
            .map(|capability| capability as i32)
            .collect(),
        ..ClientInfo::default()
    }
}

/// The names clients write; `unreal` is not among those LiveKit knows, but costs nothing.
fn sdk_from_query(name: &str) -> Sdk {
    match name {
        "js" => Sdk::Js,
        "ios" | "swift" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        "unreal" => Sdk::Unreal,
        "esp32" => Sdk::Esp32,
        _ => Sdk::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::proto::livekit::ConnectionSettings;

    fn wrap(compression: i32, join_request: Vec<u8>) -> String {
        URL_SAFE.encode(
            WrappedJoinRequest {
                compression,
                join_request,
            }
            .encode_to_vec(),
        )
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn request() -> JoinRequest {
        JoinRequest {
            client_info: Some(ClientInfo {
                sdk: Sdk::Js as i32,
                protocol: 17,
                ..Default::default()
            }),
            connection_settings: Some(ConnectionSettings {
                auto_subscribe: true,
                ..Default::default()
            }),
            publisher_offer: Some(SessionDescription {
                r#type: "offer".into(),
                sdp: "v=0".into(),
                ..Default::default()
            }),
            participant_attributes: [("a".into(), "1".into()), ("b".into(), String::new())].into(),
            ..Default::default()
        }
    }

    #[test]
    fn join_request_in_both_compressions() {
        let bytes = request().encode_to_vec();
        for text in [wrap(0, bytes.clone()), wrap(1, gzip(&bytes))] {
            let join = JoinParameters::from_query([("join_request", text.as_str())], true).unwrap();
            assert!(join.single_connection && join.auto_subscribe);
            assert_eq!(join.subscriber_allow_pause, None, "an absent setting says nothing");
            assert_eq!(join.client_info.protocol, 17);
            assert_eq!(join.publisher_offer.unwrap().sdp, "v=0");
            assert_eq!(join.attributes.len(), 1, "empty values are ignored");
        }
    }

    #[test]
    fn an_explicit_answer_about_pausing_is_kept() {
        for answer in [true, false] {
            let mut request = request();
            request.connection_settings.as_mut().unwrap().subscriber_allow_pause = Some(answer);
            let join = JoinParameters::from_join_request(request);
            assert_eq!(join.subscriber_allow_pause, Some(answer));
        }
    }

    #[test]
    fn errors_have_livekits_texts() {
        let text = |result: Result<JoinRequest, JoinRequestError>| result.unwrap_err().to_string();
        assert_eq!(
            text(decode_join_request("a+/=")),
            "cannot base64 decode wrapped join request"
        );
        assert_eq!(
            text(decode_join_request("CAE")),
            "cannot base64 decode wrapped join request",
            "no padding"
        );
        assert_eq!(
            text(decode_join_request("_____w==")),
            "cannot unmarshal wrapped join request"
        );
        assert_eq!(
            text(decode_join_request(&wrap(1, vec![1, 2, 3]))),
            "cannot read decompressed join request"
        );
        assert_eq!(
            text(decode_join_request(&wrap(0, vec![255; 4]))),
            "cannot unmarshal join request"
        );
        let bomb = gzip(&vec![0; MAX_JOIN_REQUEST + 1]);
        assert_eq!(text(decode_join_request(&wrap(1, bomb))), "join request too large");
        assert_eq!(
            JoinParameters::from_query([("sdk", "js")], true)
                .unwrap_err()
                .to_string(),
            "join_request is required"
        );
    }

    #[test]
    fn unknown_compression_is_an_empty_request() {
        assert_eq!(
            decode_join_request(&wrap(7, vec![255])).unwrap(),
            JoinRequest::default()
        );
    }

    #[test]
    fn query_parameters_of_the_dual_form() {
        let attributes = URL_SAFE.encode(r#"{"role":"host","gone":""}"#);
        let join = JoinParameters::from_query(
            [
                ("sdk", "reactnative"),
                ("version", "2.1"),
                ("protocol", "16"),
                ("client_protocol", "x"),
                ("capabilities", "CAP_PACKET_TRAILER,CAP_NEW,CAP_COMPRESSION_DEFLATE_RAW"),
                ("adaptive_stream", "1"),
                ("auto_subscribe", "yes"),
                ("sid", "PA_1"),
                ("attributes", attributes.as_str()),
                ("publish", "cam2"),
                ("publish", "ignored"),
            ],
            false,
        )
        .unwrap();
        assert!(!join.single_connection && join.adaptive_stream && !join.auto_subscribe);
        assert_eq!(join.subscriber_allow_pause, None);
        assert_eq!(join.participant_sid, "", "sid counts only with reconnect");
        assert_eq!(join.attributes, HashMap::from([("role".to_owned(), "host".to_owned())]));
        assert_eq!(join.publish.as_deref(), Some("cam2"));
        assert_eq!(
            (join.client_info.sdk(), join.client_info.protocol),
            (Sdk::ReactNative, 16)
        );
        assert_eq!(join.client_info.client_protocol, 0);
        assert_eq!(join.client_info.capabilities.len(), 2);

        let resume = [
            ("reconnect", "1"),
            ("sid", "PA_1"),
            ("reconnect_reason", "2"),
            ("attributes", "%"),
        ];
        let resume = JoinParameters::from_query(resume, false).unwrap();
        assert!(resume.reconnect && resume.auto_subscribe && resume.attributes_malformed);
        assert_eq!(resume.participant_sid, "PA_1");
        assert_eq!(resume.reconnect_reason, ReconnectReason::RrPublisherFailed);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*", bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = decode_join_request(&text);
            let _ = decode_join_request(&URL_SAFE.encode(&bytes));
            let _ = decode_join_request(&wrap(1, bytes));
        }
    }
}
