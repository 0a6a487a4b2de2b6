//! Users whose tokens only the backend can read: it is asked whose they are (RFC 7662).

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::town::{Gateway, SECRET, Town};
use crate::client::Answer;

/// Heads and bodies of what it was asked.
type Asked = Arc<Mutex<Vec<String>>>;

/// A backend that knows its tokens by their names.
async fn backend() -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/oauth/introspect", listener.local_addr().unwrap());
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&kept)));
        }
    });
    (url, asked)
}

async fn answer(mut stream: TcpStream, asked: Asked) -> Option<()> {
    let mut read = Vec::new();
    let token = loop {
        stream.read_buf(&mut read).await.ok().filter(|count| *count > 0)?;
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.to_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        if body.len() >= length.parse().ok()? {
            break body.strip_prefix("token=")?.to_owned();
        }
    };
    asked.lock().unwrap().push(String::from_utf8_lossy(&read).into_owned());
    let (status, body) = match token.as_str() {
        "of-three" => (200, json!({"active": true, "sub": "3"}).to_string()),
        "of%20four%26" => (200, json!({"active": true, "user_id": "4"}).to_string()),
        "ended" => (200, json!({"active": false, "sub": "3"}).to_string()),
        "of-nobody" => (200, json!({"active": true}).to_string()),
        "of-a-name" => (200, json!({"active": true, "sub": "three"}).to_string()),
        "refused" => (403, String::new()),
        "unlucky" => (500, String::new()),
        "unclear" => (200, "<html>".to_owned()),
        // As long as the asker likes to wait.
        _ => return std::future::pending().await,
    };
    let text = format!(
        "HTTP/1.1 {status} Word\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.ok()
}

async fn town(url: String) -> Town {
    Town::with(|config| {
        config.voice.token_secret.clear();
        config.voice.introspection_url = url;
    })
    .await
}

async fn ask(town: &Town, token: &str) -> Answer {
    town.call("GET", "/channels/20/call", token, &Value::Null).await
}

#[tokio::test]
async fn the_backend_says_whose_token_it_is() {
    let (url, asked) = backend().await;
    let town = town(url).await;
    assert_eq!(ask(&town, "of-three").await.status, 200);
    {
        let asked = asked.lock().unwrap();
        let asked = asked[0].to_lowercase();
        assert!(asked.starts_with("post /oauth/introspect http/1.1\r\n"), "{asked}");
        assert!(
            asked.contains(&format!("authorization: bearer {SECRET}\r\n")),
            "{asked}"
        );
        assert!(
            asked.contains("content-type: application/x-www-form-urlencoded\r\n"),
            "{asked}"
        );
    }
    assert_eq!(ask(&town, "of four&").await.status, 200, "whatever is in a token");
    for nobody in ["ended", "of-nobody", "of-a-name", "refused", ""] {
        let answer = ask(&town, nobody).await;
        assert_eq!(answer.status, 401, "{nobody}: {}", answer.body);
    }
    for unknown in ["unlucky", "unclear"] {
        let answer = ask(&town, unknown).await;
        assert_eq!(
            (answer.status, answer.header("retry-after")),
            (503, Some("5")),
            "{unknown}"
        );
    }
    for (token, end) in [("ended", 4004), ("unlucky", 4000)] {
        let mut gateway = Gateway::open(town.address, "/gateway?v=1").await;
        gateway.identify(token).await;
        assert_eq!(gateway.closed().await, end, "{token}");
    }
    let mut gateway = Gateway::open(town.address, "/gateway?v=1").await;
    gateway.identify("of-three").await;
    assert_eq!(gateway.event("READY").await["user"]["id"], "3");
}

#[tokio::test]
async fn a_backend_that_is_silent_is_not_waited_for() {
    let (url, _) = backend().await;
    let town = town(url).await;
    assert_eq!(ask(&town, "silence").await.status, 503);
    drop(town);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let town = self::town(format!("http://{closed}/")).await;
    assert_eq!(ask(&town, "of-three").await.status, 503);
}
