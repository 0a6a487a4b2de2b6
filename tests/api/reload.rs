//! Keys that an operator changes while the server runs: read again on SIGHUP, and when their file has changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use patchbay::proto::claims::{Claims, VideoGrant, sign};
use serde_json::json;

use crate::client::fetch;
use crate::process::{KEY, Process, SECRET};

const SECOND: &str = "another secret of the tests, long enough";

async fn opens(server: &Process, key: &str, secret: &str) -> u16 {
    let claims = Claims {
        identity: "alice".into(),
        video: Some(VideoGrant {
            room_join: true,
            room: "room".into(),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let token = sign(&claims, key, secret, now, Duration::from_secs(600));
    fetch(server.address, &format!("/rtc/validate?access_token={token}"))
        .await
        .status
}

const READ: &str = "have been read again";

#[tokio::test]
async fn keys_of_a_file_are_read_again() {
    let path = std::env::temp_dir().join(format!("patchbay-reload-{}", std::process::id()));
    let write = |text: String| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(format!("{KEY}: {SECRET}\n"));
    let mut server = Process::logging(json!({ "key_file": path })).await;
    assert_eq!(
        (
            opens(&server, KEY, SECRET).await,
            opens(&server, "second", SECOND).await
        ),
        (200, 401)
    );
    write(format!("{KEY}: {SECRET}\nsecond: {SECOND}\n"));
    server.signal("HUP");
    server.logs(READ).await;
    assert_eq!(opens(&server, "second", SECOND).await, 200);
    // Nothing is said this time: the file is looked at.
    write(format!("second: {SECOND}\n"));
    // Perhaps because of the change before, first.
    while opens(&server, KEY, SECRET).await != 401 {
        server.logs(READ).await;
    }
    // What cannot be read changes nothing.
    write("second: [\n".into());
    server.signal("HUP");
    server.logs("cannot be read again").await;
    write(format!("second: {SECOND}\nthird: {SECOND}\n"));
    server.signal("HUP");
    while opens(&server, "third", SECOND).await != 200 {
        server.logs(READ).await;
    }
    assert_eq!(opens(&server, "second", SECOND).await, 200);
    fs::remove_file(&path).unwrap();
}
