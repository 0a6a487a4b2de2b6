//! What a request's headers add to `ClientInfo`: the address, and the browser where the SDK runs in one.
//!
//! Names are those of the uap database that LiveKit uses ("Firefox", "Mobile Safari"), reduced to the browsers that
//! have WebRTC: rooms work around some of them, and backends read them.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::header::{HeaderName, USER_AGENT};
use axum::http::request::Parts;

use crate::proto::livekit::ClientInfo;
use crate::proto::livekit::client_info::Sdk;

/// Bytes kept of a header that ends up in client info.
const MAX_HEADER: usize = 256;

/// LiveKit's order: behind Cloudflare, behind a proxy, direct.
const ADDRESS_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
];

pub(super) fn complete(info: &mut ClientInfo, parts: &Parts) {
    info.address = ADDRESS_HEADERS
        .iter()
        .find_map(|name| text(parts, name))
        .map(str::to_owned)
        .or_else(|| {
            let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
            Some(peer.0.ip().to_string())
        })
        .unwrap_or_default();
    let in_browser = matches!(
        info.sdk(),
        Sdk::Unknown | Sdk::Js | Sdk::ReactNative | Sdk::Flutter | Sdk::Unity
    );
    let Some(agent) = text(parts, &USER_AGENT).filter(|_| in_browser) else {
        return;
    };
    if info.browser.is_empty()
        && let Some((name, version)) = browser(agent)
    {
        info.browser = name.to_owned();
        info.browser_version = version.to_owned();
    }
    if info.os.is_empty()
        && let Some((name, version)) = operating_system(agent)
    {
        info.os = name.to_owned();
        info.os_version = version;
    }
}

fn text<'a>(parts: &'a Parts, name: &HeaderName) -> Option<&'a str> {
    let value = parts.headers.get(name)?.to_str().ok()?;
    Some(value.get(..MAX_HEADER).unwrap_or(value)).filter(|value| !value.is_empty())
}

/// The first product that is there decides: most browsers also name those they resemble.
fn browser(agent: &str) -> Option<(&'static str, &str)> {
    let mobile = agent.contains("Mobile");
    let named: [(&str, &str, &str); 8] = [
        ("Edg/", "Edge", "Edge"),
        ("EdgA/", "Edge Mobile", "Edge Mobile"),
        ("OPR/", "Opera", "Opera Mobile"),
        ("SamsungBrowser/", "Samsung Internet", "Samsung Internet"),
        ("FxiOS/", "Firefox iOS", "Firefox iOS"),
        ("Firefox/", "Firefox", "Firefox Mobile"),
        ("CriOS/", "Chrome Mobile iOS", "Chrome Mobile iOS"),
        ("HeadlessChrome/", "HeadlessChrome", "HeadlessChrome"),
    ];
    let similar: [(&str, &str, &str); 1] = [("Chrome/", "Chrome", "Chrome Mobile")];
    for (product, desktop, phone) in named.into_iter().chain(similar) {
        if let Some(version) = version_after(agent, product) {
            return Some((if mobile { phone } else { desktop }, version));
        }
    }
    let version = version_after(agent, "Version/").filter(|_| agent.contains("Safari/"))?;
    Some((if mobile { "Mobile Safari" } else { "Safari" }, version))
}

fn operating_system(agent: &str) -> Option<(&'static str, String)> {
    let apple = |marker| version_after(agent, marker).map(|version| version.replace('_', "."));
    if let Some(version) = apple("iPhone OS ").or_else(|| apple("CPU OS ")) {
        return Some(("iOS", version));
    }
    if let Some(version) = apple("Mac OS X ") {
        return Some(("Mac OS X", version));
    }
    if agent.contains("Android") {
        return Some((
            "Android",
            version_after(agent, "Android ").unwrap_or_default().to_owned(),
        ));
    }
    if let Some(version) = version_after(agent, "Windows NT ") {
        // Microsoft froze the number: 10.0 is Windows 10 and 11.
        return Some(("Windows", version.strip_suffix(".0").unwrap_or(version).to_owned()));
    }
    if agent.contains("CrOS") {
        return Some(("Chrome OS", String::new()));
    }
    agent.contains("Linux").then(|| ("Linux", String::new()))
}

fn version_after<'a>(agent: &'a str, marker: &str) -> Option<&'a str> {
    let (_, rest) = agent.split_once(marker)?;
    let end = rest
        .find(|character: char| !character.is_ascii_digit() && character != '.' && character != '_')
        .unwrap_or(rest.len());
    rest.get(..end).filter(|version| !version.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_by_their_user_agents() {
        let cases = [
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
                "Chrome",
                "141.0.0.0",
                "Linux",
                "",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.3537.57",
                "Edge",
                "141.0.3537.57",
                "Windows",
                "10",
            ),
            (
                "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
                "Firefox",
                "144.0",
                "Linux",
                "",
            ),
            (
                "Mozilla/5.0 (Android 14; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0",
                "Firefox Mobile",
                "144.0",
                "Android",
                "14",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15",
                "Safari",
                "18.4",
                "Mac OS X",
                "10.15.7",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Mobile/15E148 Safari/604.1",
                "Mobile Safari",
                "18.4",
                "iOS",
                "18.4",
            ),
        ];
        for (agent, name, version, os, os_version) in cases {
            assert_eq!(browser(agent), Some((name, version)), "{agent}");
            assert_eq!(operating_system(agent), Some((os, os_version.to_owned())), "{agent}");
        }
        assert_eq!(browser("node"), None);
        assert_eq!(operating_system("Firefox/"), None);
    }
}
