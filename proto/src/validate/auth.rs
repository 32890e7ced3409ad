//! Rules of AuthPolicy, and what becomes of literal tokens.

use super::{common, problem::Report};
use crate::{
    hash::Hash,
    reference::{self, Part},
    v1::{AuthPolicy, auth_policy::Scheme},
};

/// The name with which a gateway says that it is open on purpose.
pub(super) const RESERVED: &str = "none";
/// What a stored token starts with.
const HASHED: &str = "sha256:";
/// Shortest literal token, in characters.
const TOKEN_MIN: usize = 8;

pub(super) fn check(policy: &AuthPolicy, report: &mut Report<'_>) {
    common::check(&policy.name, &policy.project, &policy.labels, report);
    if policy.name == RESERVED {
        report.add(
            "name",
            "`none` is reserved: `auth: none` says that a gateway is open. Choose another name",
        );
    }
    match &policy.scheme {
        None => report.add("", "has no scheme: add `bearer: { tokens: [...] }`"),
        Some(Scheme::Bearer(bearer)) => {
            if bearer.tokens.is_empty() {
                report.add(
                    "bearer.tokens",
                    "has no token: list at least one, such as \"${env:MCP_TOKEN}\"",
                );
            }
            for (number, token) in bearer.tokens.iter().enumerate() {
                check_token(&format!("bearer.tokens[{number}]"), token, report);
            }
        }
    }
}

/// Replaces literal tokens by their hash, where they are good enough to be kept.
pub(super) fn normalize(policy: &mut AuthPolicy) {
    let Some(Scheme::Bearer(bearer)) = &mut policy.scheme else {
        return;
    };
    for token in &mut bearer.tokens {
        if let Some(digits) = token.strip_prefix(HASHED) {
            if is_sha256(digits) {
                *token = format!("{HASHED}{}", digits.to_ascii_lowercase());
            }
        } else if let Some(literal) =
            literal(token).filter(|literal| bad_literal(literal).is_none())
        {
            *token = format!("{HASHED}{}", Hash::of(literal.as_bytes()));
        }
    }
}

/// Messages never hold the token.
fn check_token(path: &str, token: &str, report: &mut Report<'_>) {
    if let Some(digits) = token.strip_prefix(HASHED) {
        if !is_sha256(digits) {
            report.add(
                path,
                "`sha256:` must be followed by the 64 hex digits of the token's SHA-256",
            );
        }
        return;
    }
    let why = "which only backends can use: write the token itself (only its hash is kept), \
               \"${env:NAME}\" or \"${file:/path}\"";
    let parts = report.open_parts(path, token, why);
    if token.is_empty() {
        report.add(
            path,
            "is empty: write a token, \"${env:NAME}\" or \"${file:/path}\"",
        );
    } else if let [Part::Literal(literal)] = parts.as_slice()
        && let Some(message) = bad_literal(literal)
    {
        report.add(path, message);
    }
}

/// The token that a text without references stands for.
fn literal(text: &str) -> Option<String> {
    match reference::references(text).ok()?.as_slice() {
        [Part::Literal(literal)] => Some(literal.clone()),
        _ => None,
    }
}

fn bad_literal(token: &str) -> Option<String> {
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        Some(
            "holds blanks or characters outside ASCII, which no `Authorization` header can carry"
                .to_owned(),
        )
    } else if token.len() < TOKEN_MIN {
        Some(format!(
            "is shorter than {TOKEN_MIN} characters and can be guessed: use a random token, for example 32 hex digits"
        ))
    } else {
        None
    }
}

fn is_sha256(digits: &str) -> bool {
    digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit())
}
