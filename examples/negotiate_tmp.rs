use patchbay::control::negotiation::*;
use patchbay::types::*;
use std::io::{BufRead, Write};
fn creds(n: &str) -> IceCredentials {
    IceCredentials {
        ufrag: n.into(),
        pwd: format!("{n}{}", "p".repeat(22)),
    }
}
fn main() {
    let mut peer: Option<PeerConnection> = None;
    let mut n = 0;
    for line in std::io::stdin().lock().lines() {
        let v: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let s = |k: &str| v[k].as_str().unwrap_or("").to_string();
        let kind = if s("kind") == "audio" {
            MediaKind::Audio
        } else {
            MediaKind::Video
        };
        let out = match v["op"].as_str().unwrap() {
            "new" => {
                peer = Some(PeerConnection::new(PeerConfig {
                    role: match s("role").as_str() {
                        "single" => Role::Single,
                        "pub" => Role::Publisher,
                        _ => Role::Subscriber,
                    },
                    local: creds("ours"),
                    fingerprint: [0xab; 32],
                    ice_lite: true,
                    candidates: vec!["127.0.0.1:47882".parse().unwrap(), "[::1]:47882".parse().unwrap()],
                    tcp_candidates: vec!["127.0.0.1:47881".parse().unwrap()],
                    publish_codecs: Codec::ALL.to_vec(),
                    subscribe_codecs: Codec::ALL.to_vec(),
                    quirks: ClientQuirks::default(),
                    session_id: u64::MAX - 5,
                }));
                serde_json::json!({})
            }
            "add" => {
                let id = v["n"].as_u64().unwrap();
                peer.as_mut().unwrap().add_sender(Sender {
                    subscription: SubscriptionHandle(id),
                    track: format!("TR_{id}").into(),
                    publisher: "PA_x".into(),
                    kind,
                    codec: if kind == MediaKind::Audio {
                        Codec::Red
                    } else {
                        Codec::Vp8
                    },
                    stream: None,
                    ssrc: Ssrc(1000 + id as u32),
                    rtx_ssrc: (kind == MediaKind::Video).then_some(Ssrc(2000 + id as u32)),
                    cname: format!("c{id}"),
                    stereo: true,
                });
                serde_json::json!({})
            }
            "remove" => {
                peer.as_mut()
                    .unwrap()
                    .remove_sender(SubscriptionHandle(v["n"].as_u64().unwrap()));
                serde_json::json!({})
            }
            "offer" => {
                n += 1;
                let mk = |k| PendingTrack {
                    cid: "nope".into(),
                    kind: k,
                    codecs: vec![],
                    codec: Codec::parse(&s("codec")),
                    red: true,
                    dtx: true,
                    stereo: true,
                    rids: vec![],
                };
                match peer.as_mut().unwrap().handle_offer(
                    &s("sdp"),
                    &[mk(MediaKind::Audio), mk(MediaKind::Video)],
                    creds(&format!("fresh{n}")),
                ) {
                    Ok(a) => {
                        serde_json::json!({"sdp": a.sdp, "info": format!("{:#?}", (a.remote, a.ice_restart, a.received, a.stopped, a.bound.len(), a.unbound, a.rejected, &a.mid_to_track)), "m2t": a.mid_to_track, "restart": a.ice_restart, "out": format!("{:?}", peer.as_ref().unwrap().outstanding())})
                    }
                    Err(e) => serde_json::json!({"error": e.to_string()}),
                }
            }
            "create_offer" => match peer.as_mut().unwrap().create_offer(if s("restart").is_empty() {
                None
            } else {
                Some(creds(&s("restart")))
            }) {
                Ok(sdp) => serde_json::json!({"sdp": sdp}),
                Err(e) => serde_json::json!({"error": e.to_string()}),
            },
            "answer" => match peer.as_mut().unwrap().handle_answer(&s("sdp")) {
                Ok(a) => {
                    serde_json::json!({"info": format!("{:#?}", a), "restart": a.ice_restart, "rejected": format!("{:?}", a.rejected), "bound": a.bound.len(), "m2t": a.mid_to_track})
                }
                Err(e) => serde_json::json!({"error": e.to_string()}),
            },
            _ => panic!(),
        };
        println!("{out}");
        std::io::stdout().flush().unwrap();
    }
}
