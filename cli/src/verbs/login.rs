//! `mcpctl login`: an address and a token -> a context.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use clap::{Args, builder::BoolishValueParser};
use fleet_proto::v1::{Token, WhoAmIRequest};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{context::file, token};
use crate::{
    args,
    client::{self, ControlPlane},
    context::{self, Context},
    failure::Failure,
    output, trust,
};

/// Longest file that is taken for a token.
const LONGEST: u64 = 8 * 1024;

/// Flags of `login`.
///
/// There is no flag for the token itself: command lines are visible to others.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// gRPC address of the control plane.
    #[arg(value_name = "URL")]
    url: String,
    /// File with the token; `-` or left out: stdin, asked for on a terminal.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File (PEM) with the authorities that its certificate may come from; left out: those of the
    /// system. The context keeps what is in it.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Trust the authority that the control plane shows if its certificate has this SHA-256, as the
    /// control plane prints it at its start. Left out: asked for on a terminal.
    #[arg(long, value_name = "HEX", conflicts_with = "ca_file")]
    ca_sha256: Option<String>,
    /// Send the token over http:// also to other machines; the context keeps that.
    #[arg(long, env = "MCP_FLEET_INSECURE", value_parser = BoolishValueParser::new())]
    insecure: bool,
    /// Name of the context. Left out: host and port of the address.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// MCP endpoint of a gateway of that fleet, for `tools`, `call` and the like.
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
}

/// Logs in.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let path = file()?;
    // What cannot be saved must not be asked for.
    let mut contexts = args::read_contexts(&path)?;
    let token = match flags.token_file.as_deref() {
        Some(file) if file != Path::new("-") => from_file(file)?,
        _ => from_stdin()?,
    };
    let mut target = ControlPlane {
        url: flags.url.trim_end_matches('/').to_owned(),
        token,
        ca: flags.ca_file.as_deref().map(args::read_ca).transpose()?,
        insecure: flags.insecure,
    };
    if let Some(wanted) = &flags.ca_sha256 {
        target.ca = Some(trust::pinned(&target.url, wanted).await?);
    }
    let who = match check(&target).await {
        Err(Failure::Unreachable(why)) if target.ca.is_none() && why.contains("UnknownIssuer") => {
            target.ca = Some(offered(&target.url, why).await?);
            check(&target).await?
        }
        checked => checked?,
    };
    let own_name = || client::authority(&target.url).to_owned();
    let name = flags.name.unwrap_or_else(own_name);
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(Failure::Usage(
            "the context needs a name: --name NAME".to_owned(),
        ));
    }
    // A gateway that was told before stays.
    let known = contexts.get(Some(&name));
    let gateway = flags
        .gateway
        .or_else(|| known.and_then(|(_, context)| context.gateway.clone()));
    let context = Context {
        control_plane: Some(target.url.clone()),
        admin_token: Some(target.token),
        ca: target.ca,
        insecure: target.insecure,
        gateway,
    };
    contexts.put(&name, context);
    context::save(&path, &contexts).map_err(|e| Failure::other(e.to_string()))?;
    output::data(&format!(
        "logged in to {} as {} ({}); context {name} is chosen",
        target.url,
        output::one_line(&who.name),
        token::role_word(who.role()),
    ))
}

/// Whether the control plane takes the token, and as whose.
async fn check(target: &ControlPlane) -> Result<Token, Failure> {
    let mut client = client::connect(target).await?;
    let answer = client.who_am_i(WhoAmIRequest {}).await?.into_inner();
    Ok(answer.token.unwrap_or_default())
}

/// The authority that a control plane shows, if whoever sits at the terminal knows it.
async fn offered(url: &str, why: String) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Unreachable(format!(
            "{why}, or with --ca-sha256 (the control plane prints it at its start)"
        )));
    }
    let shown = trust::shown(url).await?;
    output::note(&format!(
        "{url} has a certificate of an authority that is not known here, SHA-256\n  {}\n\
         Trust it? It must be what the control plane printed at its start. [y/N]",
        shown.sha256
    ));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| Failure::Usage(format!("cannot read the answer: {e}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(shown.pem),
        _ => Err(Failure::Unreachable(why)),
    }
}

fn from_file(path: &Path) -> Result<String, Failure> {
    let cannot =
        |e: &io::Error| Failure::Usage(format!("cannot read the token in {}: {e}", path.display()));
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(|e| cannot(&e))?;
    one_word(&text)
}

fn from_stdin() -> Result<String, Failure> {
    let stdin = io::stdin();
    let cannot = |e: io::Error| Failure::Usage(format!("cannot read the token from stdin: {e}"));
    let mut text = String::new();
    if stdin.is_terminal() {
        output::note("Token (it is not shown):");
        let _silence = Silence::new();
        stdin.lock().read_line(&mut text).map_err(cannot)?;
    } else {
        let mut input = stdin.lock().take(LONGEST);
        input.read_to_string(&mut text).map_err(cannot)?;
    }
    one_word(&text)
}

fn one_word(text: &str) -> Result<String, Failure> {
    let mut words = text.split_whitespace();
    match (words.next(), words.next()) {
        (Some(token), None) => Ok(token.to_owned()),
        (None, _) => Err(Failure::Usage(
            "there is no token: give it on stdin, or in a file with --token-file".to_owned(),
        )),
        _ => Err(Failure::Usage(
            "that is more than a token: give the token alone".to_owned(),
        )),
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence(Option<Termios>);

impl Silence {
    fn new() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            // Shown is better than not asked.
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &silent);
        }
        Self(before)
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn a_token_is_one_word() {
        assert_eq!(one_word("abc\n").unwrap(), "abc");
        for bad in ["", " \n", "a b", "a\nb"] {
            assert_eq!(one_word(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }

    #[test]
    fn a_context_is_named_after_the_host() {
        let name = client::authority;
        assert_eq!(name("http://c.example.com:8182"), "c.example.com:8182");
        assert_eq!(name("https://[::1]:1/x?y"), "[::1]:1");
    }

    #[tokio::test]
    async fn only_a_token_that_is_taken_makes_a_context() {
        let bench = Bench::new().await;
        check(&bench.target).await.unwrap();
        let wrong = ControlPlane {
            token: "wrong".to_owned(),
            ..bench.target.clone()
        };
        assert_eq!(check(&wrong).await.unwrap_err().exit_code(), 7);
        bench.stop().await;
    }
}
