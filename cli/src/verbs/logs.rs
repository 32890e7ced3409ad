//! `mcpctl logs`: the log of a data plane, from now on.

use clap::{Args, ValueEnum};
use fleet_proto::v1::{FollowNodeLogRequest, LogLines};

use crate::{args::AdminFlags, client, clock, failure::Failure, output};

/// Flags of `logs`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The data plane, as `nodes` shows it.
    #[arg(value_name = "NODE")]
    node: String,
    /// This level and those before it; no more than what the data plane itself logs.
    #[arg(long, value_enum, default_value_t = Level::Info)]
    level: Level,
    #[command(flatten)]
    admin: AdminFlags,
}

/// How much.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Shows it until the data plane leaves or the user has seen enough.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let mut reports = client::reports(&flags.admin.resolve()?).await?;
    let request = FollowNodeLogRequest {
        node_id: flags.node.clone(),
        level: flags.level.as_str().to_owned(),
    };
    let mut lines = reports.follow_node_log(request).await?.into_inner();
    output::note(&format!("following the log of {}", flags.node));
    while let Some(lines) = lines.message().await? {
        if lines.dropped > 0 {
            output::note(&format!("note: {} lines were left out", lines.dropped));
        }
        output::data(&text(&lines))?;
    }
    Ok(())
}

fn text(lines: &LogLines) -> String {
    let line = |line: &fleet_proto::v1::LogLine| {
        let text = format!(
            "{} {:>5} {}: {}",
            clock::rfc3339(line.at_ms),
            line.level.to_ascii_uppercase(),
            line.target,
            line.text
        );
        output::one_line(&text) + "\n"
    };
    lines.lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use fleet_proto::v1::LogLine;

    use super::*;

    #[test]
    fn a_line_is_one_line_and_moves_no_cursor() {
        let line = LogLine {
            at_ms: 0,
            level: "warn".to_owned(),
            target: "mcp::stdio".to_owned(),
            text: "said a\u{1b}[2J b=1".to_owned(),
        };
        let lines = LogLines {
            lines: vec![line],
            dropped: 0,
        };
        let text = text(&lines);
        assert!(
            text.starts_with("1970-01-01T00:00:00Z  WARN mcp::stdio: said a"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}') && text.lines().count() == 1);
    }
}
