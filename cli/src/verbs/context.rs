//! `mcpctl context`: the control planes that are known by name.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::{
    args,
    context::{self, Context, Contexts},
    failure::Failure,
    output::{self, Listing},
};

/// Flags of `context`.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(subcommand)]
    what: What,
}

/// What to do with contexts.
#[derive(Debug, Subcommand)]
enum What {
    /// List the contexts; `*` marks the chosen one.
    List {
        /// How to show them.
        #[arg(long, short, value_enum, default_value_t = Listing::Table)]
        output: Listing,
    },
    /// Choose the context that is used where none is named.
    Use {
        /// Its name.
        name: String,
    },
    /// Show a context, without its token.
    Show {
        /// Its name. Left out: the chosen one.
        name: Option<String>,
    },
    /// Forget a context and its token. The token stays good: see `mcpctl token revoke`.
    Delete {
        /// Its name.
        name: String,
    },
}

/// A context as it is shown: never its token.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    current: bool,
    control_plane: Option<&'a str>,
    gateway: Option<&'a str>,
    has_token: bool,
}

/// Does it.
pub(crate) fn run(flags: Flags) -> Result<(), Failure> {
    let path = file()?;
    let mut contexts = args::read_contexts(&path)?;
    let done = match &flags.what {
        What::List { output } => {
            let all = list(&contexts);
            if all.is_empty() {
                output::note("there is no context: `mcpctl login` and `mcpctl up` make one");
            }
            let name = |shown: &Shown<'_>| shown.name.to_owned();
            return output::data(&output::listing(*output, &all, &all, name, table)?);
        }
        What::Show { name } => return output::data(&one(&contexts, name.as_deref())?),
        What::Use { name } => (contexts.choose(name), name, "chosen"),
        What::Delete { name } => (contexts.remove(name), name, "forgotten"),
    };
    let (known, name, what) = done;
    if !known {
        return Err(args::no_context(name));
    }
    context::save(&path, &contexts).map_err(|e| Failure::other(e.to_string()))?;
    output::data(&format!("context {name} {what}"))
}

/// The context file.
pub(crate) fn file() -> Result<PathBuf, Failure> {
    context::path().ok_or_else(|| {
        Failure::Usage(format!(
            "HOME is not set, so there is no place for contexts: name a file with {}",
            context::PATH_VARIABLE
        ))
    })
}

fn list(contexts: &Contexts) -> Vec<Shown<'_>> {
    let shown = |(name, context)| shown(contexts, name, context);
    contexts.iter().map(shown).collect()
}

fn shown<'a>(contexts: &Contexts, name: &'a str, context: &'a Context) -> Shown<'a> {
    Shown {
        name,
        current: contexts.current() == Some(name),
        control_plane: context.control_plane.as_deref(),
        gateway: context.gateway.as_deref(),
        has_token: context.admin_token.is_some(),
    }
}

fn table(all: &[Shown<'_>], _wide: bool) -> String {
    let row = |c: &Shown<'_>| {
        vec![
            if c.current { "*" } else { " " }.to_owned(),
            c.name.to_owned(),
            c.control_plane.unwrap_or_default().to_owned(),
            c.gateway.unwrap_or_default().to_owned(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    output::table(&["CURRENT", "NAME", "CONTROL PLANE", "GATEWAY"], &rows)
}

fn one(contexts: &Contexts, name: Option<&str>) -> Result<String, Failure> {
    let Some((name, context)) = contexts.get(name) else {
        return Err(match name {
            Some(name) => args::no_context(name),
            None => Failure::Usage("no context is chosen: see `mcpctl context list`".to_owned()),
        });
    };
    let shown = shown(contexts, name, context);
    Ok(serde_json::to_string_pretty(&shown).expect("texts serialise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contexts() -> Contexts {
        let mut contexts = Contexts::default();
        for name in ["lab", "prod"] {
            let context = Context {
                control_plane: Some(format!("http://{name}:8182")),
                admin_token: Some("s3cret".to_owned()),
                gateway: None,
            };
            contexts.put(name, context);
        }
        contexts
    }

    #[test]
    fn the_list_marks_the_chosen_one() {
        let contexts = contexts();
        assert_eq!(
            table(&list(&contexts), false),
            "CURRENT   NAME   CONTROL PLANE      GATEWAY\n\
             \u{20}         lab    http://lab:8182    -\n\
             *         prod   http://prod:8182   -\n"
        );
    }

    #[test]
    fn a_context_is_shown_without_its_token() {
        let contexts = contexts();
        for name in [None, Some("lab")] {
            let text = one(&contexts, name).unwrap();
            assert!(
                !text.contains("s3cret") && text.contains("has_token"),
                "{text}"
            );
        }
        assert_eq!(one(&contexts, Some("x")).unwrap_err().exit_code(), 2);
        assert_eq!(one(&Contexts::default(), None).unwrap_err().exit_code(), 2);
    }
}
