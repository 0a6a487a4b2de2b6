//! The scenarios of LiveKit's own integration tests that are about signalling, each in the three forms in which clients
//! come: parameters in the address (two peer connections), a join request on the same path, and `/rtc/v1` (both one).

use std::collections::HashMap;

use patchbay::proto::claims::VideoGrant;
use patchbay::proto::livekit::participant_info::State;
use patchbay::proto::livekit::request_response::Reason;
use patchbay::proto::livekit::signal_request::Message as Ask;
use patchbay::proto::livekit::signal_response::Message as Say;
use patchbay::proto::livekit::{
    AddTrackRequest, DisconnectReason, JoinRequest, JoinResponse, LeaveRequest, MuteTrackRequest, ParticipantInfo,
    ParticipantPermission, PublishDataTrackRequest, SessionDescription, SimulcastCodec, StoreDataBlobRequest,
    TrackType, UpdateParticipantMetadata, UpdateSubscription,
};
use serde_json::json;

use crate::client::{Refused, Signalling, join_request};
use crate::server::Server;

const FORMS: [Form; 3] = [Form::Address, Form::Request, Form::V1];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Address,
    Request,
    V1,
}

/// How somebody comes.
#[derive(Clone, Default)]
struct Wish {
    manual: bool,
    attributes: HashMap<String, String>,
    reconnect: bool,
    /// What it says it runs on.
    device: &'static str,
    /// Of the two connections the server's offer is left alone, and the own one offered: nothing can be subscribed to.
    unanswered: bool,
}

impl Wish {
    fn unanswered() -> Self {
        Self {
            unanswered: true,
            ..Self::default()
        }
    }
}

impl Form {
    fn target(self, wish: &Wish) -> String {
        let request = |request: &mut JoinRequest| {
            request.reconnect = wish.reconnect;
            request.participant_attributes = wish.attributes.clone();
            request.client_info.as_mut().unwrap().device_model = wish.device.into();
            request.connection_settings.as_mut().unwrap().auto_subscribe = !wish.manual;
            if !wish.reconnect {
                request.publisher_offer = Some(offer(&receiving()));
            }
        };
        match self {
            Self::Address => {
                let attributes = match wish.attributes.is_empty() {
                    true => String::new(),
                    false => {
                        let text = serde_json::to_string(&wish.attributes).unwrap();
                        format!("&attributes={}", base64_url(text.as_bytes()))
                    }
                };
                format!(
                    "/rtc?protocol=17&sdk=js&version=2.23.0&auto_subscribe={}&reconnect={}&device_model={}{attributes}",
                    u8::from(!wish.manual),
                    u8::from(wish.reconnect),
                    wish.device.replace(' ', "%20"),
                )
            }
            Self::Request => format!("/rtc?join_request={}", join_request(request)),
            Self::V1 => format!("/rtc/v1?join_request={}", join_request(request)),
        }
    }
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE
        .encode(bytes)
        .replace('=', "%3D")
}

/// One client with everything it was told after the JoinResponse.
struct Client {
    socket: Signalling,
    form: Form,
    join: JoinResponse,
    sections: Vec<String>,
}

async fn come(server: &Server, form: Form, token: &str, wish: Wish) -> Result<Client, Refused> {
    let mut socket = Signalling::open(server.address, &form.target(&wish), token).await?;
    let Say::Join(join) = socket.next().await else {
        panic!("the first message is no JoinResponse");
    };
    let mut client = Client {
        socket,
        form,
        join,
        sections: receiving(),
    };
    match form {
        Form::Address if wish.unanswered => client.offers().await,
        Form::Address => client.answer().await,
        Form::Request | Form::V1 => {}
    }
    Ok(client)
}

async fn join(server: &Server, form: Form, identity: &str) -> Client {
    come(server, form, &server.token(identity), Wish::default())
        .await
        .unwrap()
}

impl Client {
    /// Of the two connections: answers the first offer, so that the primary one is up.
    async fn answer(&mut self) {
        let offer = self
            .socket
            .until(|message| match message {
                Say::Offer(offer) => Some(offer),
                _ => None,
            })
            .await;
        let answer = SessionDescription {
            r#type: "answer".into(),
            sdp: session(&[application(0, "active")]),
            id: offer.id,
            ..Default::default()
        };
        self.socket.send(Ask::Answer(answer)).await;
    }

    /// What is said of `identity`, as soon as `wanted` accepts it.
    async fn hears(&mut self, identity: &str, wanted: impl Fn(&ParticipantInfo) -> bool) -> ParticipantInfo {
        self.socket
            .until(|message| match message {
                Say::Update(update) => {
                    let mut news = update.participants.into_iter();
                    news.find(|info| info.identity == identity && wanted(info))
                }
                _ => None,
            })
            .await
    }

    async fn active(&mut self, identity: &str) {
        self.hears(identity, |info| info.state() == State::Active).await;
    }

    async fn announces(&mut self, cid: &str, kind: TrackType, codec: &str) -> String {
        let request = AddTrackRequest {
            cid: cid.into(),
            r#type: kind as i32,
            source: if kind == TrackType::Audio { 2 } else { 1 },
            simulcast_codecs: vec![SimulcastCodec {
                codec: codec.into(),
                cid: cid.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.socket.send(Ask::AddTrack(request)).await;
        let sid = self
            .socket
            .until(|message| match message {
                Say::TrackPublished(published) => published.track,
                _ => None,
            })
            .await
            .sid;
        assert!(sid.starts_with("TR_"), "{sid}");
        sid
    }

    /// An m-line of its own that names its SSRC: the track is there without a packet.
    async fn publishes(&mut self, cid: &str, kind: TrackType, codec: &str) -> String {
        let sid = self.announces(cid, kind, codec).await;
        let at = self.sections.len();
        self.sections.push(sending(at, kind, codec, cid));
        self.offers().await;
        sid
    }

    async fn offers(&mut self) {
        let offer = offer(&self.sections);
        self.socket.send(Ask::Offer(offer)).await;
    }
}

fn session(sections: &[String]) -> String {
    let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let fingerprint = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n{}",
        mids.join(" "),
        sections.concat()
    )
}

fn offer(sections: &[String]) -> SessionDescription {
    SessionDescription {
        r#type: "offer".into(),
        sdp: session(sections),
        id: 1,
        ..Default::default()
    }
}

fn transport(mid: usize, setup: &str) -> String {
    format!(
        "c=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:ufrag\r\na=ice-pwd:password-of-24-characters\r\na=setup:{setup}\r\n"
    )
}

fn application(mid: usize, setup: &str) -> String {
    format!(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{}a=sctp-port:5000\r\na=max-message-size:262144\r\n",
        transport(mid, setup)
    )
}

fn media(mid: usize, kind: TrackType, codec: &str, rest: &str) -> String {
    let transport = transport(mid, "actpass");
    match (kind, codec) {
        (TrackType::Audio, _) => format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n{transport}a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10\r\n\
             a=rtcp-mux\r\n{rest}"
        ),
        (_, "h264") => format!(
            "m=video 9 UDP/TLS/RTP/SAVPF 108\r\n{transport}a=rtpmap:108 H264/90000\r\n\
             a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\na=rtcp-mux\r\n{rest}"
        ),
        (_, "h264 or vp8") => format!(
            "m=video 9 UDP/TLS/RTP/SAVPF 108 96\r\n{transport}a=rtpmap:108 H264/90000\r\n\
             a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
             a=rtpmap:96 VP8/90000\r\na=rtcp-mux\r\n{rest}"
        ),
        _ => format!(
            "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{transport}a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli\r\n\
             a=rtcp-mux\r\n{rest}"
        ),
    }
}

/// A data channel, and a place to receive one of each kind.
fn receiving() -> Vec<String> {
    vec![
        application(0, "actpass"),
        media(1, TrackType::Audio, "opus", "a=recvonly\r\n"),
        media(2, TrackType::Video, "vp8", "a=recvonly\r\n"),
    ]
}

fn sending(mid: usize, kind: TrackType, codec: &str, cid: &str) -> String {
    let ssrc = 7000 + mid;
    let rest = format!("a=sendonly\r\na=msid:- {cid}\r\na=ssrc:{ssrc} cname:c\r\na=ssrc:{ssrc} msid:- {cid}\r\n");
    media(mid, kind, codec, &rest)
}

#[tokio::test]
async fn two_clients_see_each_other() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        alice.active("alice").await;
        let mut bob = join(&server, form, "bob").await;
        let seen = &bob.join.other_participants[0];
        assert_eq!(
            (seen.identity.as_str(), seen.state()),
            ("alice", State::Active),
            "{form:?}"
        );
        alice.active("bob").await;
        bob.active("bob").await;
        assert_eq!(alice.join.subscriber_primary, form == Form::Address);
        assert_eq!(alice.form, form);
    }
}

#[tokio::test]
async fn a_second_connection_for_publishing_is_one_more_participant() {
    // LiveKit: the parameter exists in the address only.
    let server = Server::connecting(|_| {}).await;
    let alice = join(&server, Form::Address, "alice").await;
    let target = "/rtc?protocol=17&publish=screen";
    let mut screen = Signalling::open(server.address, target, &server.token("alice"))
        .await
        .unwrap();
    let Say::Join(joined) = screen.next().await else {
        panic!()
    };
    assert_eq!(joined.participant.unwrap().identity, "alice#screen");
    drop(alice);
}

#[tokio::test]
async fn tracks_are_shown_to_those_who_are_there_and_those_who_come() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let mut bob = join(&server, form, "bob").await;
        alice.active("bob").await;
        let voice = alice.publishes("mic", TrackType::Audio, "opus").await;
        let picture = alice.publishes("cam", TrackType::Video, "vp8").await;
        let seen = bob.hears("alice", |info| info.tracks.len() == 2).await;
        let mime = |sid: &str| {
            let track = seen.tracks.iter().find(|track| track.sid == sid).unwrap();
            track.mime_type.clone()
        };
        assert_eq!(
            (mime(&voice), mime(&picture)),
            ("audio/opus".into(), "video/VP8".into()),
            "{form:?}"
        );
        let late = join(&server, form, "carol").await;
        let known: Vec<usize> = late
            .join
            .other_participants
            .iter()
            .map(|info| info.tracks.len())
            .collect();
        assert_eq!(known, [2, 0], "{form:?}");

        // The m-line ends: so does the track, for everybody.
        let place = alice.sections.len() - 1;
        alice.sections[place] = media(place, TrackType::Video, "vp8", "a=inactive\r\n");
        alice.offers().await;
        let seen = bob.hears("alice", |info| info.tracks.len() == 1).await;
        assert_eq!(seen.tracks[0].sid, voice);
        let leave = LeaveRequest::default();
        alice.socket.send(Ask::Leave(leave)).await;
        let gone = bob.hears("alice", |info| info.state() == State::Disconnected).await;
        assert_eq!(gone.disconnect_reason(), DisconnectReason::ClientInitiated);
    }
}

#[tokio::test]
async fn nothing_is_subscribed_to_unasked_where_that_is_off() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let manual = Wish {
            manual: true,
            ..Wish::default()
        };
        let mut bob = come(&server, form, &server.token("bob"), manual).await.unwrap();
        let voice = alice.publishes("mic", TrackType::Audio, "opus").await;
        bob.hears("alice", |info| info.tracks.len() == 1).await;
        let wish = UpdateSubscription {
            track_sids: vec![voice.clone()],
            subscribe: true,
            ..Default::default()
        };
        // The permission is the first that is said of a subscription: none before it was asked for.
        bob.socket.send(Ask::Ping(7)).await;
        let early = bob
            .socket
            .until(|message| match message {
                Say::SubscriptionPermissionUpdate(_) => Some(true),
                Say::Pong(_) => Some(false),
                _ => None,
            })
            .await;
        assert!(!early, "{form:?}");
        bob.socket.send(Ask::Subscription(wish)).await;
        let allowed = bob
            .socket
            .until(|message| match message {
                Say::SubscriptionPermissionUpdate(update) => Some(update),
                _ => None,
            })
            .await;
        assert_eq!((allowed.track_sid, allowed.allowed), (voice, true));
    }
}

#[tokio::test]
async fn a_second_track_may_have_another_codec() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let mut bob = join(&server, form, "bob").await;
        alice.publishes("one", TrackType::Video, "vp8").await;
        alice.publishes("two", TrackType::Video, "h264").await;
        let seen = bob.hears("alice", |info| info.tracks.len() == 2).await;
        let mut mimes: Vec<&str> = seen.tracks.iter().map(|track| track.mime_type.as_str()).collect();
        mimes.sort_unstable();
        assert_eq!(mimes, ["video/H264", "video/VP8"], "{form:?}");
    }
}

#[tokio::test]
async fn a_device_whose_encoder_is_broken_is_given_another_codec() {
    for form in FORMS {
        for (device, mime) in [("Pixel 9", "video/H264"), ("Xiaomi 2201117TI", "video/VP8")] {
            let server = Server::connecting(|_| {}).await;
            let mut bob = join(&server, form, "bob").await;
            let wish = Wish {
                device,
                ..Wish::default()
            };
            let mut alice = come(&server, form, &server.token("alice"), wish).await.unwrap();
            alice.active("alice").await;
            // It would rather send H264, and can send VP8.
            alice.publishes("cam", TrackType::Video, "h264 or vp8").await;
            let seen = bob.hears("alice", |info| info.tracks.len() == 1).await;
            assert_eq!(seen.tracks[0].mime_type, mime, "{form:?} {device}");
        }
    }
}

#[tokio::test]
async fn an_address_may_end_in_a_slash() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let target = format!("/{}", form.target(&Wish::default()));
        let mut client = Signalling::open(server.address, &target, &server.token("alice"))
            .await
            .unwrap();
        assert!(matches!(client.next().await, Say::Join(_)), "{form:?}");
    }
}

#[tokio::test]
async fn a_room_that_was_deleted_is_joined_anew() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let first = alice.join.room.clone().unwrap().sid;
        server.node.delete_room("room").await.unwrap().unwrap();
        let leave = alice
            .socket
            .until(|message| match message {
                Say::Leave(leave) => Some(leave),
                _ => None,
            })
            .await;
        assert_eq!(leave.reason(), DisconnectReason::RoomDeleted, "{form:?}");
        let again = join(&server, form, "alice").await;
        assert_ne!(again.join.room.unwrap().sid, first);
    }
}

#[tokio::test]
async fn rooms_that_do_not_make_themselves_are_made_first() {
    for form in FORMS {
        let server = Server::connecting(|config| config.auto_create = false).await;
        let token = server.token("alice");
        let refused = come(&server, form, &token, Wish::default()).await.err().unwrap();
        assert_eq!(
            refused,
            Refused(404, "requested room does not exist".into()),
            "{form:?}"
        );
        let request = serde_json::from_value(json!({"name": "room"})).unwrap();
        server.node.create_room(request).await.unwrap();
        come(&server, form, &token, Wish::default()).await.unwrap();
    }
}

#[tokio::test]
async fn subscribing_may_be_allowed_later() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let token = server.token_with("bob", |claims| {
            claims.video.as_mut().unwrap().can_subscribe = Some(false);
        });
        let mut bob = come(&server, form, &token, Wish::unanswered()).await.unwrap();
        let voice = alice.publishes("mic", TrackType::Audio, "opus").await;
        let data = PublishDataTrackRequest {
            pub_handle: 5,
            name: "numbers".into(),
            ..Default::default()
        };
        alice.socket.send(Ask::PublishDataTrackRequest(data)).await;
        bob.hears("alice", |info| info.data_tracks.len() == 1).await;
        let request = patchbay::proto::livekit::UpdateParticipantRequest {
            room: "room".into(),
            identity: "bob".into(),
            permission: Some(ParticipantPermission {
                can_subscribe: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        server.node.update_participant(request).await.unwrap().unwrap();
        let allowed = bob
            .socket
            .until(|message| match message {
                Say::SubscriptionPermissionUpdate(update) => Some(update),
                _ => None,
            })
            .await;
        assert_eq!((allowed.track_sid, allowed.allowed), (voice, true), "{form:?}");
    }
}

#[tokio::test]
async fn attributes_of_the_token_and_of_the_client_are_joined() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let token = server.token_with("alice", |claims| {
            claims.attributes = [("a", "token"), ("b", "token")]
                .map(|(k, v)| (k.into(), v.into()))
                .into();
            claims.video.as_mut().unwrap().can_update_own_metadata = Some(true);
        });
        let wish = Wish {
            attributes: [("b", "client"), ("c", "client")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            ..Wish::default()
        };
        let alice = come(&server, form, &token, wish).await.unwrap();
        let attributes = alice.join.participant.unwrap().attributes;
        let expected = [("a", "token"), ("b", "client"), ("c", "client")].map(|(k, v)| (k.into(), v.into()));
        assert_eq!(attributes, HashMap::from(expected), "{form:?}");
    }
}

#[tokio::test]
async fn attributes_change_only_with_the_right() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        for right in [false, true] {
            let identity = if right { "may" } else { "may not" };
            let token = server.token_with(identity, |claims| {
                claims.video.as_mut().unwrap().can_update_own_metadata = Some(right);
            });
            let mut client = come(&server, form, &token, Wish::default()).await.unwrap();
            let update = UpdateParticipantMetadata {
                attributes: [("k".to_owned(), "v".to_owned())].into(),
                request_id: 9,
                ..Default::default()
            };
            client.socket.send(Ask::UpdateMetadata(update)).await;
            let (id, reason) = client
                .socket
                .until(|message| match message {
                    Say::RequestResponse(response) => Some((response.request_id, response.reason())),
                    _ => None,
                })
                .await;
            let expected = if right { Reason::Ok } else { Reason::NotAllowed };
            assert_eq!((id, reason), (9, expected), "{form:?}");
        }
    }
}

#[tokio::test]
async fn a_refreshed_token_says_what_is_true_now() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let token = server.token_with("alice", |claims| {
            claims.metadata = "about alice".into();
            claims.video = Some(VideoGrant {
                room_join: true,
                room: "room".into(),
                can_publish: Some(false),
                ..VideoGrant::default()
            });
        });
        let mut alice = come(&server, form, &token, Wish::unanswered()).await.unwrap();
        let fresh = alice
            .socket
            .until(|message| match message {
                Say::RefreshToken(token) => Some(token),
                _ => None,
            })
            .await;
        let claims = patchbay::proto::claims::verify(&fresh, &server.node.keys(), server.node.unix()).unwrap();
        assert_eq!(claims.metadata, "about alice");
        let grant = claims.video.unwrap();
        assert!(!grant.can_publish() && !grant.can_publish_data(), "{form:?}");
    }
}

#[tokio::test]
async fn publishing_may_be_forbidden_later() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let mut bob = join(&server, form, "bob").await;
        let voice = alice.publishes("mic", TrackType::Audio, "opus").await;
        bob.hears("alice", |info| info.tracks.len() == 1).await;
        let request = patchbay::proto::livekit::UpdateParticipantRequest {
            room: "room".into(),
            identity: "alice".into(),
            permission: Some(ParticipantPermission {
                can_subscribe: true,
                ..Default::default()
            }),
            ..Default::default()
        };
        server.node.update_participant(request).await.unwrap().unwrap();
        let told = alice
            .socket
            .until(|message| match message {
                Say::TrackUnpublished(told) => Some(told.track_sid),
                _ => None,
            })
            .await;
        assert_eq!(told, voice, "{form:?}");
        bob.hears("alice", |info| info.tracks.is_empty()).await;
        let request = AddTrackRequest {
            cid: "again".into(),
            ..Default::default()
        };
        alice.socket.send(Ask::AddTrack(request)).await;
        let reason = alice
            .socket
            .until(|message| match message {
                Say::RequestResponse(response) => Some(response.reason()),
                _ => None,
            })
            .await;
        assert_eq!(reason, Reason::NotAllowed);
    }
}

#[tokio::test]
async fn who_never_connected_is_gone_with_its_socket_and_who_did_is_not() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let mut bob = join(&server, form, "bob").await;
        alice.active("bob").await;
        bob.active("bob").await;
        let (voice, sid) = (
            bob.publishes("mic", TrackType::Audio, "opus").await,
            bob.join.participant.clone().unwrap().sid,
        );
        drop(bob);
        let back = Wish {
            reconnect: true,
            ..Wish::default()
        };
        let target = form.target(&back);
        let mut again = Signalling::open(server.address, &target, &server.token("bob"))
            .await
            .unwrap();
        assert!(matches!(again.next().await, Say::Reconnect(_)), "{form:?}");
        let known = server.node.participant("room", "bob").await.unwrap();
        assert_eq!(
            (known.sid, known.tracks[0].sid.as_str()),
            (sid, voice.as_str()),
            "sids are stable"
        );
        // Nothing of somebody who was never there can be resumed.
        let mut nobody = Signalling::open(server.address, &target, &server.token("carol"))
            .await
            .unwrap();
        let Say::Leave(leave) = nobody.next().await else {
            panic!("{form:?}: not a Leave")
        };
        assert_eq!(leave.reason(), DisconnectReason::StateMismatch);
    }
}

#[tokio::test]
async fn a_track_without_a_packet_can_be_muted() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let mut bob = join(&server, form, "bob").await;
        let sid = alice.publishes("mic", TrackType::Audio, "opus").await;
        alice
            .socket
            .send(Ask::Mute(MuteTrackRequest { sid, muted: true }))
            .await;
        let seen = bob
            .hears("alice", |info| info.tracks.iter().any(|track| track.muted))
            .await;
        assert_eq!(seen.tracks.len(), 1, "{form:?}");
        alice
            .socket
            .send(Ask::Mute(MuteTrackRequest {
                sid: "TR_nobody".into(),
                muted: true,
            }))
            .await;
        let reason = alice
            .socket
            .until(|message| match message {
                Say::RequestResponse(response) => Some(response.reason()),
                _ => None,
            })
            .await;
        assert_eq!(reason, Reason::NotFound);
    }
}

#[tokio::test]
async fn data_tracks_have_names_and_handles_of_their_own() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        let mut bob = join(&server, form, "bob").await;
        let request = |pub_handle, name: &str| {
            Ask::PublishDataTrackRequest(PublishDataTrackRequest {
                pub_handle,
                name: name.into(),
                ..Default::default()
            })
        };
        alice.socket.send(request(7, "numbers")).await;
        let info = alice
            .socket
            .until(|message| match message {
                Say::PublishDataTrackResponse(response) => response.info,
                _ => None,
            })
            .await;
        assert!(info.sid.starts_with("DTR_"), "{}", info.sid);
        let seen = bob.hears("alice", |info| !info.data_tracks.is_empty()).await;
        assert_eq!(seen.data_tracks[0].name, "numbers", "{form:?}");
        for (handle, name, expected) in [
            (7, "more", Reason::DuplicateHandle),
            (8, "numbers", Reason::DuplicateName),
            (0, "more", Reason::InvalidHandle),
            (70_000, "more", Reason::InvalidHandle),
            (9, "", Reason::InvalidName),
        ] {
            alice.socket.send(request(handle, name)).await;
            let reason = alice
                .socket
                .until(|message| match message {
                    Say::RequestResponse(response) => Some(response.reason()),
                    _ => None,
                })
                .await;
            assert_eq!(reason, expected, "{handle} {name}");
        }
    }
}

#[tokio::test]
async fn data_blobs_are_stored_where_that_is_on() {
    for form in FORMS {
        for on in [false, true] {
            let server = Server::connecting(|config| config.room.enable_participant_data_blob = on).await;
            let mut alice = join(&server, form, "alice").await;
            let request: StoreDataBlobRequest = serde_json::from_value(json!({
                "requestId": 4, "blob": { "key": { "generic": "k" }, "contents": "AQI=" }
            }))
            .unwrap();
            alice.socket.send(Ask::StoreDataBlobRequest(request)).await;
            let stored = alice
                .socket
                .until(|message| match message {
                    Say::StoreDataBlobResponse(_) => Some(Ok(())),
                    Say::RequestResponse(response) => Some(Err(response.reason())),
                    _ => None,
                })
                .await;
            let expected = if on { Ok(()) } else { Err(Reason::NotAllowed) };
            assert_eq!(stored, expected, "{form:?}");
        }
    }
}

/// Somebody in the room "elsewhere".
async fn join_elsewhere(server: &Server, form: Form, identity: &str) -> Client {
    let token = server.token_with(identity, |claims| {
        claims.video.as_mut().unwrap().room = "elsewhere".into();
    });
    come(server, form, &token, Wish::default()).await.unwrap()
}

#[tokio::test]
async fn who_is_moved_stays_on_its_socket() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        alice.active("alice").await;
        let mut bob = join(&server, form, "bob").await;
        let mut carol = join_elsewhere(&server, form, "carol").await;
        let voice = alice.publishes("mic", TrackType::Audio, "opus").await;
        let request = serde_json::from_value(json!({
            "room": "room", "identity": "alice", "destinationRoom": "elsewhere"
        }));
        server.node.move_participant(request.unwrap()).await.unwrap();
        let moved = alice
            .socket
            .until(|message| match message {
                Say::RoomMoved(moved) => Some(moved),
                Say::Leave(_) => panic!("{form:?}: it is told to leave"),
                _ => None,
            })
            .await;
        assert_eq!(moved.room.unwrap().name, "elsewhere");
        assert_eq!(moved.other_participants[0].identity, "carol");
        let gone = bob.hears("alice", |info| info.state() == State::Disconnected).await;
        assert_eq!(gone.disconnect_reason(), DisconnectReason::Migration);
        let here = carol.hears("alice", |info| info.tracks.len() == 1).await;
        assert_eq!(here.tracks[0].sid, voice, "{form:?}");
        assert_eq!(here.sid, alice.join.participant.clone().unwrap().sid);
        // What it asks from now on is for the new room.
        let sid = voice.clone();
        alice
            .socket
            .send(Ask::Mute(MuteTrackRequest { sid, muted: true }))
            .await;
        carol
            .hears("alice", |info| info.tracks.iter().any(|track| track.muted))
            .await;
        // The token it was given is one for that room: there it comes back to its session.
        drop(alice);
        let back = Wish {
            reconnect: true,
            ..Wish::default()
        };
        let mut again = Signalling::open(server.address, &form.target(&back), &moved.token)
            .await
            .unwrap();
        assert!(matches!(again.next().await, Say::Reconnect(_)), "{form:?}");
        // And back, with what it has.
        let request = serde_json::from_value(json!({
            "room": "elsewhere", "identity": "alice", "destinationRoom": "room"
        }));
        server.node.move_participant(request.unwrap()).await.unwrap();
        let here = bob.hears("alice", |info| info.tracks.len() == 1).await;
        assert_eq!(here.tracks[0].sid, voice);
        again.send(Ask::Leave(LeaveRequest::default())).await;
        bob.hears("alice", |info| info.state() == State::Disconnected).await;
    }
}

#[tokio::test]
async fn who_is_shown_elsewhere_is_followed() {
    for form in FORMS {
        let server = Server::connecting(|_| {}).await;
        let mut alice = join(&server, form, "alice").await;
        alice.active("alice").await;
        let mut carol = join_elsewhere(&server, form, "carol").await;
        let voice = alice.publishes("mic", TrackType::Audio, "opus").await;
        let forward = || {
            serde_json::from_value(json!({
                "room": "room", "identity": "alice", "destinationRoom": "elsewhere"
            }))
            .unwrap()
        };
        server.node.forward_participant(forward()).await.unwrap();
        let seen = carol.hears("alice", |info| info.tracks.len() == 1).await;
        assert_eq!(seen.tracks[0].sid, voice, "{form:?}");
        alice.publishes("cam", TrackType::Video, "vp8").await;
        carol.hears("alice", |info| info.tracks.len() == 2).await;
        // Put out there, shown again, and gone with its own room.
        server
            .node
            .remove_participant("elsewhere", "alice")
            .await
            .unwrap()
            .unwrap();
        carol.hears("alice", |info| info.state() == State::Disconnected).await;
        assert!(server.node.participant("room", "alice").await.is_some());
        server.node.forward_participant(forward()).await.unwrap();
        carol.hears("alice", |info| info.tracks.len() == 2).await;
        server.node.delete_room("room").await.unwrap().unwrap();
        carol.hears("alice", |info| info.state() == State::Disconnected).await;
        assert_eq!(server.node.participants("elsewhere").await.unwrap().len(), 1);
    }
}
