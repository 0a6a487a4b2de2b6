use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Duration = Duration::from_secs(1_700_000_000);
const SECRET: &str = "a secret of at least 32 characters";

fn keys() -> ApiKeys {
    [("key1", SECRET), ("key2", "another secret")].into_iter().collect()
}

/// A token with any header and claims, signed with HMAC-SHA256 whatever its header says.
fn token(header: Value, claims: Value) -> String {
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn hs256(claims: Value) -> String {
    token(json!({"alg": "HS256", "typ": "JWT"}), claims)
}

fn check(claims: Value) -> Result<Claims, String> {
    verify(&hs256(claims), &keys(), NOW).map_err(|error| error.to_string())
}

fn at(offset: i64) -> i64 {
    NOW.as_secs() as i64 + offset
}

#[test]
fn every_claim_is_read() {
    let claims = check(json!({
        "iss": "key1", "sub": "alice", "identity": "mallory", "exp": at(10), "nbf": at(-10), "name": "Alice",
        "kind": "agent", "kindDetails": ["cloud_agent", "new_one"], "metadata": "m", "attributes": {"a": "1"},
        "video": {"roomJoin": true, "room": "r", "canPublish": false, "canPublishSources": ["camera"], "hidden": null},
        "sip": {"admin": true}, "agent": {"databaseAdmin": true}, "inference": {"perform": true},
        "observability": {"write": true}, "roomPreset": "p", "sha256": "s",
        "roomConfig": {"empty_timeout": 7, "maxParticipants": 3, "unknown": 1, "metadata": null},
        "someday": {"x": 1},
    }))
    .unwrap();
    assert_eq!((claims.identity.as_str(), claims.api_key.as_str()), ("alice", "key1"));
    assert_eq!(claims.participant_kind(), Kind::Agent);
    assert_eq!(claims.participant_kind_details(), [KindDetail::CloudAgent]);
    assert!(claims.is_agent() && claims.is_dependent() && !claims.is_recorder());
    assert_eq!(claims.attributes["a"], "1");
    let room = claims.room_config.clone().unwrap();
    assert_eq!((room.empty_timeout, room.max_participants), (7, 3));
    let video = claims.video.clone().unwrap();
    assert!(video.room_join && !video.can_publish() && !video.can_publish_data());
    assert!(
        !video.can_publish_source(TrackSource::Camera),
        "canPublish: false wins over the list"
    );
    assert!(claims.sip.clone().unwrap().admin && claims.agent.clone().unwrap().database_admin);
    assert_eq!(claims.remaining(NOW), Duration::from_secs(10));

    let refreshed = claims.for_refresh();
    assert!(refreshed.sip.is_none() && refreshed.agent.is_none() && refreshed.kind_details.is_empty());
    assert_eq!(refreshed.video, claims.video);
}

#[test]
fn identity_falls_back_to_the_token_id() {
    assert_eq!(
        check(json!({"iss": "key1", "jti": "bob", "exp": at(1)}))
            .unwrap()
            .identity,
        "bob"
    );
    assert_eq!(check(json!({"iss": "key1", "exp": at(1)})).unwrap().identity, "");
}

#[test]
fn absent_rights_have_livekits_meaning() {
    let grant = VideoGrant::default();
    assert!(grant.can_publish() && grant.can_subscribe() && grant.can_publish_data());
    assert!(!grant.can_update_own_metadata() && !grant.can_subscribe_metrics() && !grant.can_manage_agent_session());
    assert!(grant.can_publish_source(TrackSource::ScreenShare));
    let only = VideoGrant {
        can_publish_sources: vec!["microphone".into()],
        ..Default::default()
    };
    assert!(only.can_publish_source(TrackSource::Microphone) && !only.can_publish_source(TrackSource::Camera));
    let mut copy = VideoGrant::default();
    copy.set_permission(&only.permission());
    assert_eq!(copy.permission(), only.permission());
}

#[test]
fn times_have_a_minute_of_leeway() {
    let with = |exp: Value, nbf: Value| check(json!({"iss": "key1", "exp": exp, "nbf": nbf})).map(|_| ());
    assert_eq!(with(json!(at(-59)), json!(at(60))), Ok(()));
    assert_eq!(with(json!(at(1) as f64 + 0.5), Value::Null), Ok(()));
    let invalid = |text: &str| Err(format!("invalid authorization token: token has invalid claims: {text}"));
    assert_eq!(with(json!(at(-60)), Value::Null), invalid("token is expired"));
    assert_eq!(with(json!(-1), Value::Null), invalid("token is expired"));
    assert_eq!(with(json!(at(5)), json!(at(61))), invalid("token is not valid yet"));
    assert_eq!(
        with(json!(at(-70)), json!(at(61))),
        invalid("token is expired, token is not valid yet")
    );
    assert_eq!(
        with(Value::Null, Value::Null),
        invalid("token is missing required claim: exp claim is required")
    );
    assert_eq!(
        with(json!("soon"), Value::Null),
        Err("invalid authorization token".into())
    );
}

#[test]
fn refusals_have_livekits_texts() {
    let text = |token: &str| verify(token, &keys(), NOW).unwrap_err().to_string();
    for garbage in ["", "a.b", "a.b.c", "....", "a.b.c.d", "\u{1f980}.\u{1f980}.\u{1f980}"] {
        assert_eq!(text(garbage), "invalid authorization token", "{garbage}");
    }
    assert_eq!(text(&hs256(json!({"iss": "key3", "exp": at(9)}))), "invalid API key");
    assert_eq!(text(&hs256(json!({"exp": at(9)}))), "invalid API key");
    assert_eq!(
        text(&hs256(json!({"iss": "key2", "exp": at(9)}))),
        "invalid authorization token: token signature is invalid: signature is invalid",
        "signed with the other key's secret"
    );
    assert_eq!(text(&hs256(json!([1]))), "invalid authorization token");
    assert_eq!(
        text(&hs256(json!({"iss": "key1", "sub": 5, "exp": at(9)}))),
        "invalid authorization token"
    );
    assert!(
        text(&hs256(
            json!({"iss": "key1", "exp": at(9), "video": {"roomJoin": "yes"}})
        ))
        .starts_with("invalid authorization token: token is malformed: could not JSON decode claim: ")
    );
}

#[test]
fn only_hs256_is_accepted() {
    let claims = json!({"iss": "key1", "sub": "alice", "exp": at(9)});
    for algorithm in ["none", "RS256", "HS384", "HS512", "ES256", "EdDSA", "PS512"] {
        let signed = token(json!({"alg": algorithm}), claims.clone());
        let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
        for token in [signed, unsigned] {
            assert_eq!(
                verify(&token, &keys(), NOW).unwrap_err().to_string(),
                format!(
                    "invalid authorization token: token signature is invalid: signing method {algorithm} is invalid"
                )
            );
        }
    }
    for algorithm in ["hs256", "None", "HS256 ", ""] {
        let token = token(json!({"alg": algorithm}), claims.clone());
        assert_eq!(verify(&token, &keys(), NOW), Err(TokenError::Malformed));
    }
}

#[test]
fn an_empty_secret_opens_nothing() {
    let keys: ApiKeys = [("key1", "")].into_iter().collect();
    let token = sign(&Claims::default(), "key1", "", NOW, LEEWAY);
    assert!(verify(&token, &keys, NOW).is_err());
}

#[test]
fn a_signed_token_verifies_until_it_expires() {
    let claims = Claims {
        identity: "alice".into(),
        kind: "standard".into(),
        video: Some(VideoGrant {
            room_join: true,
            room: "r".into(),
            can_subscribe: Some(false),
            ..Default::default()
        }),
        room_config: Some(RoomConfiguration {
            empty_timeout: 5,
            ..Default::default()
        }),
        attributes: [("a".to_owned(), "b".to_owned())].into(),
        ..Default::default()
    };
    let token = sign(&claims, "key1", SECRET, NOW, Duration::from_secs(600));
    let read = verify(&token, &keys(), NOW + Duration::from_secs(659)).unwrap();
    assert_eq!(
        read,
        Claims {
            api_key: "key1".into(),
            expires_at: NOW.as_secs() + 600,
            ..claims
        }
    );
    assert!(verify(&token, &keys(), NOW + Duration::from_secs(660)).is_err());
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["sub"], "alice");
    assert_eq!(payload["identity"], "alice");
    assert_eq!(
        payload["video"],
        json!({"roomJoin": true, "room": "r", "canSubscribe": false})
    );
    assert!(payload.get("name").is_none());
}

proptest! {
    #[test]
    fn random_texts_never_panic(text in "\\PC{0,200}", parts in proptest::array::uniform3("[A-Za-z0-9_-]{0,40}")) {
        prop_assert!(verify(&text, &keys(), NOW).is_err());
        prop_assert!(verify(&parts.join("."), &keys(), NOW).is_err());
    }

    /// Any single changed character of a good token is refused, without a panic.
    #[test]
    fn a_mutated_token_is_refused(position in 0_usize..300, replacement in "[A-Za-z0-9_.-]") {
        let claims = Claims { identity: "alice".into(), ..Default::default() };
        let good = sign(&claims, "key1", SECRET, NOW, Duration::from_secs(600));
        let mut bad: Vec<char> = good.chars().collect();
        let position = position % bad.len();
        bad[position] = replacement.chars().next().unwrap();
        let bad: String = bad.into_iter().collect();
        prop_assert_eq!(verify(&bad, &keys(), NOW).is_ok(), bad == good);
    }

    /// Claims of any shape, well signed, never panic.
    #[test]
    fn random_claims_never_panic(exp in any::<f64>(), nbf in any::<f64>(), json in "[{}\\[\\]:,\"a-z0-9]{0,60}") {
        let _ = check(json!({"iss": "key1", "exp": exp, "nbf": nbf}));
        if let Ok(value) = serde_json::from_str::<Value>(&json) {
            let _ = check(value);
        }
    }
}
