//! How the service shall behave, as text: `latency=40ms`, or `v3:error_rate=0.05` for one version.

use std::time::Duration;

/// Everything the service is told.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceOptions {
    /// Where to listen on the loopback address; 0 takes a free port.
    pub port: u16,
    /// What it answers with.
    pub version: String,
    /// How it misbehaves.
    pub behaviour: Behaviour,
}

/// How the service misbehaves; by default, not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Behaviour {
    /// Time from the start until it is ready.
    pub ready_delay: Duration,
    /// It never becomes ready.
    pub never_ready: bool,
    /// Share of requests answered with 500.
    pub error_rate: f64,
    /// Time every request takes, give or take a tenth.
    pub latency: Duration,
    /// It answers so many requests, and crashes on the next one.
    pub crash_after_requests: Option<u64>,
    /// It crashes so long after the start.
    pub crash_after: Option<Duration>,
    /// It exits before it listens.
    pub exit_code: Option<u8>,
    /// It crashes so long after it became ready.
    pub die_after_ready: Option<Duration>,
    /// Share of requests that are never answered.
    pub hang_rate: f64,
    /// From so long after the start on, nothing is answered, probes included.
    pub hang_after: Option<Duration>,
    /// How SIGTERM is met.
    pub slow_stop: SlowStop,
    /// Memory lost with every request, in KiB.
    pub leak_kib: u32,
    /// Share of requests answered with bytes that are no HTTP.
    pub garbage_rate: f64,
    /// Lines written to the log every second.
    pub log_lines_per_second: u32,
    /// Least size of an answer's body in bytes.
    pub body_bytes: u32,
}

/// How SIGTERM is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowStop {
    /// At once: finish what was begun, and go.
    #[default]
    No,
    /// Ignored for so long.
    For(Duration),
    /// Ignored.
    Forever,
}

/// One thing that can be set.
pub struct Setting {
    /// Before the `=`.
    pub key: &'static str,
    /// For people.
    pub help: &'static str,
    apply: fn(&mut Behaviour, &str) -> Result<(), &'static str>,
}

macro_rules! setting {
    ($key:ident, $parse:expr, $help:literal) => {
        Setting {
            key: stringify!($key),
            help: $help,
            apply: |behaviour, text| {
                behaviour.$key = $parse(text)?;
                Ok(())
            },
        }
    };
}

/// Everything that can be set.
pub const SETTINGS: [Setting; 15] = [
    setting!(ready_delay, duration, "time from the start until it is ready: 2s"),
    setting!(never_ready, flag, "never becomes ready: true"),
    setting!(error_rate, rate, "share of requests answered with 500: 0.05"),
    setting!(latency, duration, "time every request takes, give or take a tenth: 20ms"),
    setting!(crash_after_requests, some_count, "crashes on the request after so many: 100"),
    setting!(crash_after, some_duration, "crashes so long after the start: 5s"),
    setting!(exit_code, code, "exits at once with this code: 3"),
    setting!(die_after_ready, some_duration, "crashes so long after it became ready: 2s"),
    setting!(hang_rate, rate, "share of requests that are never answered: 0.01"),
    setting!(hang_after, some_duration, "answers nothing from then on: 5s"),
    setting!(slow_stop, slow_stop, "ignores SIGTERM for so long: 3s, forever"),
    setting!(leak_kib, count, "KiB of memory lost with every request: 16"),
    setting!(garbage_rate, rate, "share of requests answered with nonsense: 0.02"),
    setting!(log_lines_per_second, count, "lines written to the log every second: 5000"),
    setting!(body_bytes, count, "least size of an answer's body: 1024"),
];

/// Why the options were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `=` in it.
    #[error("{0:?} is not of the form key=value")]
    Form(String),
    /// No such setting.
    #[error("there is no setting {0:?}; there are: {known}", known = known())]
    Unknown(String),
    /// Not a value for it.
    #[error("{key}={value}: expected {expected}")]
    Value {
        /// Of which setting.
        key: String,
        /// What was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// `PORT` is missing or no port.
    #[error("the environment variable PORT must hold a port, not {0:?}")]
    Port(String),
}

fn known() -> String {
    SETTINGS.map(|setting| setting.key).join(", ")
}

impl ServiceOptions {
    /// Takes port and version from `PORT` and `SWITCHBACK_VERSION`, as an instance finds them.
    pub fn from_environment<S: AsRef<str>>(
        settings: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let port = std::env::var("PORT").unwrap_or_default();
        let port = port.parse().map_err(|_| Error::Port(port))?;
        let version = std::env::var("SWITCHBACK_VERSION").unwrap_or_else(|_| "v0".to_owned());
        Self::new(port, version, settings)
    }

    /// Reads settings of the form `key=value`, or `version:key=value`, which count for that
    /// version only. Later ones win. Those for other versions are checked all the same.
    pub fn new<S: AsRef<str>>(
        port: u16,
        version: impl Into<String>,
        settings: impl IntoIterator<Item = S>,
    ) -> Result<Self, Error> {
        let version = version.into();
        let mut behaviour = Behaviour::default();
        for setting in settings {
            let text = setting.as_ref();
            let (key, value) = text.split_once('=').ok_or_else(|| Error::Form(text.to_owned()))?;
            let (only, key) = key.split_once(':').map_or((None, key), |(v, key)| (Some(v), key));
            let mut unused = Behaviour::default();
            let applies = only.is_none_or(|only| only == version);
            apply(if applies { &mut behaviour } else { &mut unused }, key, value)?;
        }
        Ok(Self { port, version, behaviour })
    }
}

fn apply(behaviour: &mut Behaviour, key: &str, value: &str) -> Result<(), Error> {
    let setting = SETTINGS.iter().find(|setting| setting.key == key);
    let setting = setting.ok_or_else(|| Error::Unknown(key.to_owned()))?;
    (setting.apply)(behaviour, value).map_err(|expected| Error::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        expected,
    })
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "a whole number with a unit: 250ms, 10s, 5m";
    let digits = text.find(|found: char| !found.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| EXPECTED)?;
    match unit {
        "ms" => Ok(Duration::from_millis(u64::from(number))),
        "s" => Ok(Duration::from_secs(u64::from(number))),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        _ => Err(EXPECTED),
    }
}

fn some_duration(text: &str) -> Result<Option<Duration>, &'static str> {
    duration(text).map(Some)
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1.0).contains(rate));
    rate.ok_or("a share between 0 and 1")
}

fn count(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a whole number")
}

fn some_count(text: &str) -> Result<Option<u64>, &'static str> {
    count(text).map(|count| Some(u64::from(count)))
}

fn code(text: &str) -> Result<Option<u8>, &'static str> {
    text.parse().map(Some).map_err(|_| "an exit code between 0 and 255")
}

fn flag(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "true or false")
}

fn slow_stop(text: &str) -> Result<SlowStop, &'static str> {
    if text == "forever" {
        return Ok(SlowStop::Forever);
    }
    duration(text).map(SlowStop::For).map_err(|_| "a duration, as in 3s, or forever")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviour(version: &str, settings: &[&str]) -> Result<Behaviour, Error> {
        ServiceOptions::new(0, version, settings).map(|options| options.behaviour)
    }

    #[test]
    fn settings_count_for_all_versions_or_for_one() {
        let settings = ["latency=20ms", "v3:error_rate=0.05", "v4:latency=40ms", "slow_stop=3s"];
        let all = Behaviour {
            latency: Duration::from_millis(20),
            slow_stop: SlowStop::For(Duration::from_secs(3)),
            ..Behaviour::default()
        };
        assert_eq!(behaviour("v2", &settings).unwrap(), all);
        let v3 = Behaviour { error_rate: 0.05, ..all.clone() };
        assert_eq!(behaviour("v3", &settings).unwrap(), v3);
        let v4 = Behaviour { latency: Duration::from_millis(40), ..all };
        assert_eq!(behaviour("v4", &settings).unwrap(), v4);
    }

    #[test]
    fn every_setting_can_be_set_and_refuses_nonsense() {
        for setting in &SETTINGS {
            let values = ["true", "0.5", "7", "7s", "forever"];
            let set = |value: &&str| behaviour("v1", &[&format!("{}={value}", setting.key)]);
            let taken = values.iter().filter_map(|value| set(value).ok());
            assert!(taken.clone().count() > 0, "{}", setting.key);
            assert!(taken.clone().all(|set| set != Behaviour::default()), "{}", setting.key);
            for value in ["", "x", "-1", "1.5", "NaN", "99999999999"] {
                assert!(set(&value).is_err(), "{}={value}", setting.key);
            }
        }
    }

    #[test]
    fn a_mistake_names_what_is_wrong() {
        let message = |settings: &[&str]| behaviour("v1", settings).unwrap_err().to_string();
        assert_eq!(message(&["latency"]), "\"latency\" is not of the form key=value");
        assert!(
            message(&["latencz=1s"]).starts_with("there is no setting \"latencz\"; there are: ")
        );
        assert_eq!(
            message(&["v2:latency=20"]),
            "latency=20: expected a whole number with a unit: 250ms, 10s, 5m"
        );
    }
}
