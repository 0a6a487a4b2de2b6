//! WHIP as a publisher sees it: statuses, headers and texts. Media is silent here; a browser's is in the end-to-end
//! stories.

use patchbay::proto::livekit::TrackSource;

use crate::client::{Answer, fetch, request};
use crate::server::Server;

pub const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\n\
    a=setup:actpass\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n\
    a=sendonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n\
    a=sendonly\r\na=msid:- picture\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n";
const FRAGMENT: &str = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
    a=candidate:1 1 udp 2113937151 127.0.0.1 5000 typ host\r\na=end-of-candidates\r\n";

struct Publisher<'a> {
    server: &'a Server,
    authorization: String,
}

impl Publisher<'_> {
    async fn send(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
        let headers: Vec<&str> = headers.iter().copied().chain([self.authorization.as_str()]).collect();
        request(self.server.address, method, target, &headers, body).await
    }

    async fn post(&self, body: &str) -> Answer {
        self.send("POST", "/whip/v1", &["content-type: application/sdp"], body)
            .await
    }

    async fn patch(&self, target: &str, etag: &str, body: &str) -> Answer {
        let etag = format!("if-match: {etag}");
        let headers = ["content-type: application/trickle-ice-sdpfrag", etag.as_str()];
        self.send("PATCH", target, &headers, body).await
    }
}

fn publisher<'a>(server: &'a Server, identity: &str) -> Publisher<'a> {
    Publisher {
        server,
        authorization: format!("authorization: Bearer {}", server.token(identity)),
    }
}

/// The line of a description or fragment that begins so.
fn line<'a>(text: &'a str, start: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no {start} in {text}"))
}

#[tokio::test]
async fn a_publisher_comes_trickles_restarts_and_goes() {
    let server = Server::start().await;
    let camera = publisher(&server, "camera");
    let created = camera.post(OFFER).await;
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.header("content-type"), Some("application/sdp"));
    let participant = server.node.participant("room", "camera").await.unwrap();
    let location = created.header("location").unwrap();
    assert_eq!(location, format!("/whip/v1/{}", participant.sid));
    let etag = created.header("etag").unwrap();
    assert_eq!(etag, line(&created.body, "a=ice-ufrag:"));
    assert!(created.header("link").unwrap().ends_with("; rel=\"ice-server\""));
    assert_eq!(created.body.matches("a=recvonly").count(), 2);
    assert!(created.body.contains("a=candidate:"), "{}", created.body);

    assert_eq!(camera.patch(location, etag, FRAGMENT).await.status, 204);
    let restart = FRAGMENT.replace("abcd", "EFGH");
    let restarted = camera.patch(location, "*", &restart).await;
    assert_eq!(restarted.status, 200, "{}", restarted.body);
    assert_eq!(
        restarted.header("content-type"),
        Some("application/trickle-ice-sdpfrag")
    );
    let fresh = restarted.header("etag").unwrap();
    assert_ne!(fresh, etag);
    assert_eq!(fresh, line(&restarted.body, "a=ice-ufrag:"));
    assert!(restarted.body.contains("a=candidate:"));
    assert_eq!(
        camera.patch(location, etag, &restart).await.status,
        412,
        "of the session before"
    );
    assert_eq!(
        camera.patch(location, &format!("\"{fresh}\""), &restart).await.status,
        204
    );

    let other = publisher(&server, "other");
    for answer in [
        other.patch(location, fresh, FRAGMENT).await,
        other.send("DELETE", location, &[], "").await,
    ] {
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "{\"error\":\"participant does not exist\"}\n")
        );
    }
    assert_eq!(camera.send("DELETE", location, &[], "").await.status, 200);
    assert!(server.node.participant("room", "camera").await.is_none());
    assert_eq!(camera.send("DELETE", location, &[], "").await.status, 404);
}

#[tokio::test]
async fn faults_have_livekits_statuses_and_texts() {
    let server = Server::start().await;
    let camera = publisher(&server, "camera");
    let wrong = camera
        .send("POST", "/whip/v1", &["content-type: text/plain"], OFFER)
        .await;
    assert_eq!(
        (wrong.status, wrong.body.as_str()),
        (400, "{\"error\":\"unsupported content-type: text/plain\"}\n")
    );
    assert_eq!(wrong.header("content-type"), Some("text/plain; charset=utf-8"));
    let bad = camera.post("nonsense").await;
    assert!(
        bad.body.starts_with("{\"error\":\"malformed SDP offer: "),
        "{}",
        bad.body
    );
    assert_eq!((bad.status, bad.header("content-type")), (400, Some("application/sdp")));
    assert_eq!(
        camera.post("").await.body,
        "{\"error\":\"body does not have SDP offer\"}\n"
    );
    let nobody = request(
        server.address,
        "POST",
        "/whip/v1",
        &["content-type: application/sdp"],
        OFFER,
    )
    .await;
    assert_eq!(
        (nobody.status, nobody.body.as_str()),
        (401, "{\"error\":\"permissions denied\"}\n")
    );

    let trickle = ["content-type: application/trickle-ice-sdpfrag"];
    let no_tag = camera.send("PATCH", "/whip/v1/PA_x", &trickle, FRAGMENT).await;
    assert_eq!(
        (no_tag.status, no_tag.body.as_str()),
        (428, "{\"error\":\"missing entity tag\"}\n")
    );
    assert_eq!(fetch(server.address, "/whip/v1").await.status, 204);
    assert_eq!(fetch(server.address, "/whip/v1/PA_x").await.status, 204);
    let options = request(server.address, "OPTIONS", "/whip/v1", &[], "").await;
    let methods = options.header("access-control-allow-methods");
    assert_eq!(
        (options.status, methods),
        (200, Some("PATCH, OPTIONS, GET, POST, DELETE"))
    );
    let put = request(server.address, "PUT", "/whip/v1", &[], "").await;
    assert_eq!(
        (put.status, put.header("allow")),
        (405, Some("GET, HEAD, OPTIONS, POST"))
    );
    let from_page = ["origin: https://a.example", "content-type: application/sdp"];
    let answer = camera.send("POST", "/whip/v1", &from_page, OFFER).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("*"),
        "Location and ETag are for the page to read"
    );
}

#[tokio::test]
async fn who_may_not_publish_is_refused_and_sources_are_those_of_a_camera() {
    let server = Server::start().await;
    let token = server.token_with("viewer", |claims| {
        claims.video.as_mut().unwrap().can_publish = Some(false);
    });
    let viewer = Publisher {
        server: &server,
        authorization: format!("authorization: Bearer {token}"),
    };
    assert_eq!(viewer.post(OFFER).await.status, 401);
    let camera = publisher(&server, "camera");
    assert_eq!(camera.post(OFFER).await.status, 201);
    let tracks = server.node.counts().tracks;
    assert!(tracks <= 2, "{tracks}");
    let participant = server.node.participant("room", "camera").await.unwrap();
    let known = [TrackSource::Camera, TrackSource::Microphone];
    assert!(participant.tracks.iter().all(|track| known.contains(&track.source())));
}

/// As OBS and others with its library offer: everything in the offer, SSRCs named, one codec of each kind, no candidates to
/// come, and nothing asked again.
fn of_a_studio() -> String {
    let transport = "c=IN IP4 0.0.0.0\r\na=ice-ufrag:stud\r\na=ice-pwd:studiostudiostudiostudio\r\na=setup:actpass\r\na=rtcp-mux\r\n";
    let fingerprint = ["1F"; 32].join(":");
    format!(
        "v=0\r\no=rtc 42 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=group:LS 0 1\r\n\
         a=msid-semantic:WMS *\r\na=ice-options:ice2,trickle\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         m=audio 50001 UDP/TLS/RTP/SAVPF 111\r\n{transport}a=mid:0\r\na=sendonly\r\na=ssrc:11 cname:studio\r\n\
         a=ssrc:11 msid:studio studio-audio\r\na=msid:studio studio-audio\r\na=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1\r\n\
         m=video 50001 UDP/TLS/RTP/SAVPF 96\r\n{transport}a=mid:1\r\na=sendonly\r\na=ssrc:12 cname:studio\r\n\
         a=ssrc:12 msid:studio studio-video\r\na=msid:studio studio-video\r\na=rtpmap:96 H264/90000\r\n\
         a=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 goog-remb\r\n\
         a=fmtp:96 profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1\r\n\
         a=candidate:1 1 UDP 2114977791 127.0.0.1 50001 typ host\r\na=end-of-candidates\r\n"
    )
}

#[tokio::test]
async fn a_studio_publishes_to_a_server_that_waits_for_its_checks() {
    let server = Server::connecting(|_| {}).await;
    let studio = publisher(&server, "studio");
    let created = studio.post(&of_a_studio()).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let answer = &created.body;
    // It sends the checks, and DTLS's first message; all our candidates are there, since it asks for no more.
    assert!(answer.contains("a=ice-lite\r\n"), "{answer}");
    assert!(
        answer.contains("a=candidate:") && answer.contains("a=end-of-candidates"),
        "{answer}"
    );
    assert_eq!(answer.matches("a=recvonly").count(), 2, "{answer}");
    assert!(answer.contains("a=rtpmap:96 H264/90000"), "{answer}");
    assert!(answer.contains("profile-level-id=42e01f"), "{answer}");
    let location = created.header("location").unwrap().to_owned();
    let info = server.node.participant("room", "studio").await.unwrap();
    let mut mimes: Vec<&str> = info.tracks.iter().map(|track| track.mime_type.as_str()).collect();
    mimes.sort_unstable();
    assert_eq!(
        mimes,
        ["audio/opus", "video/H264"],
        "SSRCs were named: the tracks are there"
    );
    #[expect(deprecated, reason = "clients of before `audio_features` read it")]
    let is_stereo = info.tracks.iter().any(|track| track.stereo);
    assert!(is_stereo);
    assert_eq!(studio.send("DELETE", &location, &[], "").await.status, 200);
    assert!(server.node.participant("room", "studio").await.is_none());
}
