//! What is asked of a load test: the command line, named profiles, and the checked scenario they come to.

use std::time::Duration;

use clap::ValueEnum;

use super::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Video {
    None,
    /// One stream of 2 Mbit/s, 1280 × 720, 30 frames a second.
    #[value(name = "720p")]
    P720,
    /// Three encodings: 160, 450 and 1700 kbit/s.
    Simulcast,
    /// The same rates as spatial layers of one stream; VP9 only.
    Svc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VideoCodec {
    Vp8,
    Vp9,
    H264,
    Av1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// 5 voices to 300 listeners.
    AudioLarge,
    /// 10 cameras (simulcast) with microphones to 10 subscribers.
    Meeting,
    /// One camera of 2 Mbit/s to 400 subscribers.
    Livestream,
}

/// `patchbay load-test`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Server to test: ws://, wss://, http:// or https://. Without it one is started for the test, on this machine
    #[arg(long)]
    pub url: Option<String>,
    #[arg(long, env = "LIVEKIT_API_KEY", default_value = "devkey")]
    pub api_key: String,
    #[arg(long, env = "LIVEKIT_API_SECRET", hide_env_values = true, default_value = "secret")]
    pub api_secret: String,
    /// A workload by name; other flags change parts of it
    #[arg(long, value_enum)]
    pub profile: Option<Profile>,
    /// Multiplies the profile's numbers of clients
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    #[arg(long, default_value_t = 1)]
    pub rooms: usize,
    /// Of each room [default: 1]
    #[arg(long)]
    pub publishers: Option<usize>,
    /// Of each room [default: 10]
    #[arg(long)]
    pub subscribers: Option<usize>,
    /// What each publisher sends [default: 720p]
    #[arg(long, value_enum)]
    pub video: Option<Video>,
    /// Each publisher also sends Opus, 32 kbit/s
    #[arg(long)]
    pub audio: bool,
    /// Each publisher also sends ten messages of 200 bytes a second, half of them reliably
    #[arg(long)]
    pub data: bool,
    #[arg(long, value_enum, default_value_t = VideoCodec::Vp8)]
    pub codec: VideoCodec,
    /// How long to measure once every track arrives: 30, 30s, 2m
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub duration: Duration,
    /// Clients that join in a second
    #[arg(long, default_value_t = 40.0)]
    pub ramp: f64,
    /// Subscribers of each room that open and check every packet; the others count headers
    #[arg(long, default_value_t = 1)]
    pub verify: usize,
    /// Percentage of packets that may be lost before the test has failed
    #[arg(long, default_value_t = 0.0)]
    pub max_loss: f64,
    /// Process of the server, on this machine: report what it costs
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Datagrams a second that nobody asked for, sent to the server's media port beside the call: what does a flood cost?
    #[arg(long, default_value_t = 0)]
    pub garbage: u64,
    /// Receive every datagram by itself. Otherwise what the server sends as one (GSO) goes whole through loopback and into
    /// the socket (UDP_GRO), as it would to a network card that cuts it up
    #[arg(long)]
    pub no_gro: bool,
    /// Every participant through the server's own TURN relay over UDP: what does that cost the server?
    #[arg(long)]
    pub relay: bool,
    /// Everybody loses the signalling connection every so often, takes the session up again and restarts ICE: 5s
    #[arg(long, value_parser = duration)]
    pub resume_every: Option<Duration>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What a test does, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub rooms: usize,
    pub publishers: usize,
    pub subscribers: usize,
    pub verify: usize,
    pub video: Video,
    pub audio: bool,
    pub data: bool,
    pub codec: VideoCodec,
    pub duration: Duration,
    /// Between two joins.
    pub join_every: Duration,
    /// Sockets take in one piece what was sent in one piece.
    pub gro: bool,
    pub relay: bool,
    /// Datagrams a second.
    pub garbage: u64,
    pub resume_every: Option<Duration>,
}

impl Scenario {
    /// Tracks that one subscriber is to get.
    pub fn tracks_each(&self) -> usize {
        self.publishers * (usize::from(self.video != Video::None) + usize::from(self.audio))
    }

    pub fn tracks_expected(&self) -> usize {
        self.tracks_each() * self.subscribers * self.rooms
    }

    pub fn clients(&self) -> usize {
        (self.publishers + self.subscribers) * self.rooms
    }
}

/// More sockets and tasks than one thread can drive.
const MAX_CLIENTS: usize = 10_000;
/// Datagrams a second: more than one thread can send.
const MAX_GARBAGE: u64 = 1_000_000;
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

impl Options {
    pub fn scenario(&self) -> Result<Scenario, Failure> {
        let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return usage("--scale has to be above 0");
        }
        if !(self.ramp.is_finite() && (0.1..=1000.0).contains(&self.ramp)) {
            return usage("--ramp has to be between 0.1 and 1000 joins a second");
        }
        if !(0.0..=100.0).contains(&self.max_loss) {
            return usage("--max-loss is a percentage");
        }
        if self.duration < Duration::from_secs(1) || self.duration > MAX_DURATION {
            return usage("--duration has to be between 1 s and 24 h");
        }
        let scaled = |count: usize| ((count as f64 * self.scale).round() as usize).max(1);
        let (publishers, subscribers, video, audio) = match self.profile {
            None => (1, 10, Video::P720, false),
            Some(Profile::AudioLarge) => (5, scaled(300), Video::None, true),
            Some(Profile::Meeting) => (scaled(10), scaled(10), Video::Simulcast, true),
            Some(Profile::Livestream) => (1, scaled(400), Video::P720, false),
        };
        let scenario = Scenario {
            rooms: self.rooms,
            publishers: self.publishers.unwrap_or(publishers),
            subscribers: self.subscribers.unwrap_or(subscribers),
            verify: self.verify,
            video: self.video.unwrap_or(video),
            audio: self.audio || audio,
            data: self.data,
            codec: self.codec,
            duration: self.duration,
            join_every: Duration::from_secs_f64(1.0 / self.ramp),
            gro: !self.no_gro,
            relay: self.relay,
            garbage: self.garbage,
            resume_every: self.resume_every,
        };
        if scenario.rooms == 0 || scenario.publishers == 0 || scenario.subscribers == 0 {
            return usage("at least one room, publisher and subscriber are needed");
        }
        if scenario.clients() > MAX_CLIENTS {
            return usage("more than 10,000 clients: start several tests");
        }
        if scenario.garbage > MAX_GARBAGE {
            return usage("--garbage is at most 1000000 a second");
        }
        if scenario.garbage > 0 && scenario.verify >= scenario.subscribers {
            return usage("--garbage needs a subscriber that counts: lower --verify");
        }
        if scenario
            .resume_every
            .is_some_and(|every| every < Duration::from_secs(1))
        {
            return usage("--resume-every is at least 1 s");
        }
        if scenario.tracks_each() == 0 {
            return usage("nothing to publish: --video or --audio");
        }
        if scenario.video == Video::Svc && scenario.codec != VideoCodec::Vp9 {
            return usage("--video svc needs --codec vp9");
        }
        if scenario.video == Video::Simulcast && matches!(scenario.codec, VideoCodec::Vp9 | VideoCodec::Av1) {
            return usage("--video simulcast needs --codec vp8 or h264");
        }
        Ok(scenario)
    }
}

/// `30`, `30s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(format!("unknown unit {other:?}: s, m or h")),
    };
    let count: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    Ok(Duration::from_secs(count.saturating_mul(unit)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn scenario(arguments: &str) -> Result<Scenario, Failure> {
        let line = std::iter::once("load-test").chain(arguments.split_whitespace());
        Line::try_parse_from(line).expect("arguments").options.scenario()
    }

    #[test]
    fn profiles_scale_and_flags_override() {
        let meeting = scenario("--profile meeting --scale 2 --subscribers 7").expect("a scenario");
        assert_eq!((meeting.publishers, meeting.subscribers), (20, 7));
        assert_eq!((meeting.video, meeting.audio), (Video::Simulcast, true));
        assert_eq!(meeting.tracks_expected(), 20 * 2 * 7);
        let audio = scenario("--profile audio-large --scale 0.5 --rooms 2").expect("a scenario");
        assert_eq!(
            (audio.publishers, audio.subscribers, audio.video),
            (5, 150, Video::None)
        );
        assert_eq!(audio.tracks_expected(), 5 * 150 * 2);
        assert_eq!(
            scenario("--profile livestream --duration 2m")
                .expect("a scenario")
                .duration
                .as_secs(),
            120
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for arguments in [
            "--video none",
            "--video svc",
            "--video simulcast --codec av1",
            "--scale 0",
            "--subscribers 0",
            "--subscribers 10000",
            "--ramp 0",
            "--duration 0",
            "--max-loss 101",
            "--garbage 2000000",
            "--garbage 1 --subscribers 1",
            "--resume-every 0",
        ] {
            assert!(matches!(scenario(arguments), Err(Failure::Usage(_))), "{arguments}");
        }
        assert!(duration("5x").is_err() && duration("").is_err());
    }
}
