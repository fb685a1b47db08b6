//! The command line's words: every command and option, and what they mean. No behaviour.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args, Parser};
use serde::de::{DeserializeOwned, IntoDeserializer, value};
use switchback_domain::EnvironmentName;

use crate::commands::Command;

/// Takes a new version into production without users noticing, and back before they notice.
#[derive(Debug, Parser)]
#[command(name = "switchback", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Short form of --file, before the command.
    #[arg(short = 'f', value_name = "FILE", hide = true)]
    pub(crate) short_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done or promoted, 1 deployment failed, 64 usage, 69 control plane not reachable,
70 internal, 74 cannot write, 75 busy, 77 rejected, 78 configuration, 130 watching interrupted.
`switchback explain SB0201` explains an error code.";

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The configuration; otherwise `switchback.yaml` here or in the nearest parent directory
    /// that has one. `-f FILE` before the command means the same.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Where journal, logs and sockets live; otherwise `.switchback` beside the configuration.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The environment; otherwise the control plane's own.
    #[arg(long = "env", global = true, value_name = "ENVIRONMENT")]
    pub(crate) environment: Option<EnvironmentName>,
    /// Print one JSON document last, and nothing else.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// With --json: print every event as a JSON line before it.
    #[arg(long, global = true, requires = "json")]
    pub(crate) events: bool,
    /// Plain lines: no colours, nothing redrawn (as with `NO_COLOR`, or without a terminal).
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

/// A value of one of the domain's enums, by the names it has in the configuration.
pub(crate) fn named<T>(
    names: &'static [&'static str],
) -> impl clap::builder::TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| -> Result<T, value::Error> {
        T::deserialize(IntoDeserializer::<value::Error>::into_deserializer(name))
    })
}

/// A duration as in the configuration: `30s`, `5m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match switchback_config::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) => Err("must be more than 0".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use switchback_domain::strategy::{BusyPolicy, StrategyKind};

    use super::*;
    use crate::commands::Command;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn deploy_takes_everything_at_once() {
        let line = "switchback deploy api --version v2 --env staging --strategy blue-green \
                    --on-busy supersede --accept-no-rollback --dry-run --json";
        let arguments = parse(line).unwrap();
        assert!(arguments.global.json);
        assert_eq!(arguments.global.environment.unwrap().as_str(), "staging");
        let Command::Deploy(deploy) = arguments.command else { panic!("not a deploy") };
        assert_eq!(deploy.service.as_str(), "api");
        assert_eq!(deploy.strategy, Some(StrategyKind::BlueGreen));
        assert_eq!(deploy.on_busy, Some(BusyPolicy::Supersede));
        assert!(deploy.accept_no_rollback && deploy.dry_run && !deploy.no_wait);
    }

    #[test]
    fn f_is_the_file_before_the_command_and_follow_after_logs() {
        let arguments = parse("switchback -f a.yaml logs api -f").unwrap();
        assert_eq!(arguments.short_file, Some(PathBuf::from("a.yaml")));
        assert!(matches!(arguments.command, Command::Logs(logs) if logs.follow));
        assert!(parse("switchback status -f a.yaml").is_err());
    }

    #[test]
    fn operations_name_their_services() {
        for line in [
            "switchback maintenance on --page p.html --retry-after 5m --reason upgrade",
            "switchback maintenance off api web",
            "switchback isolate api --env staging",
            "switchback unisolate api",
            "switchback divert api --to-service web",
            "switchback undivert api",
            "switchback hold api web --for 30s --cap 5",
            "switchback release",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_names_are_refused_with_their_reason() {
        for line in [
            "switchback deploy Api",
            "switchback deploy api --version ../x",
            "switchback deploy api --strategy sideways",
            "switchback status --events",
            "switchback logs --tail many",
            "switchback frobnicate",
            "switchback maintenance",
            "switchback maintenance on --retry-after soon",
            "switchback isolate",
            "switchback divert api",
            "switchback divert api --to-version v1 --to-service web",
            "switchback hold api --for 0s",
            "switchback hold api --cap 0",
            "switchback",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let message = parse("switchback deploy Api").unwrap_err().to_string();
        assert!(message.contains("lower-case"), "{message}");
    }
}
