//! What particular clients cannot do, whatever their descriptions say.

use crate::types::Codec;

/// Deviations of one client from what it negotiates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientQuirks {
    /// Neither publish nor receive RED.
    pub no_red: bool,
    /// A publishing m-line is answered with the preferred codec alone, because the client does not take the first
    /// codec of an answer for the one to send.
    pub preferred_codec_only: bool,
    /// A freed m-line is not used again for another track. Safari; also for protocols below 4 and in rooms with
    /// `sync_streams`, which only the caller knows.
    pub no_transceiver_reuse: bool,
    /// The client does not connect to an ICE-lite agent reliably: be a full agent.
    pub full_ice: bool,
    /// Codecs it must neither send nor receive.
    pub disabled_codecs: Vec<Codec>,
    /// Codecs it must not send.
    pub disabled_publish_codecs: Vec<Codec>,
}

/// A client as `ClientInfo` or the user agent describes it; case does not matter, empty = unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientDescription<'a> {
    pub browser: &'a str,
    /// `18.3.1`
    pub browser_version: &'a str,
    pub os: &'a str,
    pub device_model: &'a str,
}

impl ClientQuirks {
    pub fn detect(client: ClientDescription<'_>) -> Self {
        let is = |text: &str, name: &str| text.to_ascii_lowercase().contains(name);
        let firefox = is(client.browser, "firefox");
        // "Mobile Safari" too; Chromium browsers never name themselves Safari in this field.
        let safari = is(client.browser, "safari");
        let mut quirks = Self {
            no_red: firefox || safari,
            full_ice: firefox,
            no_transceiver_reuse: safari,
            ..Self::default()
        };
        if safari {
            quirks.disabled_codecs.push(Codec::Av1);
            // LiveKit: Safari after 18.3 publishes VP9 that others cannot decode.
            if version(client.browser_version) > (18, 3) {
                quirks.disabled_publish_codecs.push(Codec::Vp9);
            }
        }
        let linux_or_android = is(client.os, "linux") || is(client.os, "android") || is(client.os, "ubuntu");
        if firefox && linux_or_android {
            quirks.preferred_codec_only = true;
            quirks.disabled_publish_codecs.push(Codec::H264);
        }
        // LiveKit: this phone's H264 encoder produces broken pictures.
        if client.device_model.eq_ignore_ascii_case("Xiaomi 2201117TI") || client.device_model == "2201117TI" {
            quirks.disabled_publish_codecs.push(Codec::H264);
        }
        quirks
    }
}

/// The first two numbers of a dotted version; missing ones are 0.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(browser: &'static str, browser_version: &'static str, os: &'static str) -> ClientQuirks {
        ClientQuirks::detect(ClientDescription {
            browser,
            browser_version,
            os,
            device_model: "",
        })
    }

    #[test]
    fn chromium_has_none() {
        assert_eq!(detect("Chrome", "140.0", "Windows"), ClientQuirks::default());
        assert_eq!(detect("", "", ""), ClientQuirks::default());
    }

    #[test]
    fn firefox_gets_full_ice_and_no_red() {
        let quirks = detect("Firefox", "140.0", "macOS");
        assert!(quirks.full_ice && quirks.no_red && !quirks.preferred_codec_only);
        let linux = detect("firefox", "140.0", "Linux");
        assert!(linux.preferred_codec_only);
        assert_eq!(linux.disabled_publish_codecs, [Codec::H264]);
    }

    #[test]
    fn safari_depends_on_its_version() {
        let old = detect("Safari", "18.3.1", "macOS");
        assert_eq!(old.disabled_codecs, [Codec::Av1]);
        assert!(old.disabled_publish_codecs.is_empty() && old.no_transceiver_reuse);
        assert_eq!(
            detect("Mobile Safari", "18.4", "iOS").disabled_publish_codecs,
            [Codec::Vp9]
        );
    }
}
