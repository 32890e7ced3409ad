//! What a client wants to hear of, and what of it is honoured.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{
    call::{Call, ProtocolVersion},
    catalog::versions::Listed,
    envelope,
    error::{CallError, INVALID_PARAMS},
    sealed::scope::Scope,
    tasks::{self, Task},
    upstream::message::CLIENT_INFO,
};

/// URIs and tasks in one filter.
const MOST: usize = 1_000;

/// The `notifications` of the request, or of its acknowledgement.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Filter {
    #[serde(skip_serializing_if = "is_false")]
    tools_list_changed: bool,
    #[serde(skip_serializing_if = "is_false")]
    prompts_list_changed: bool,
    #[serde(skip_serializing_if = "is_false")]
    resources_list_changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resource_subscriptions: Vec<String>,
    /// Of the tasks extension.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    task_ids: Vec<String>,
    /// The tasks that `task_ids` name; others are not honoured.
    #[serde(skip)]
    pub(super) tasks: Vec<Task>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Filter {
    /// The filter of a request.
    ///
    /// # Errors
    /// It has none, or names tasks although its client knows of none.
    pub(super) fn of(call: &Call, scope: &Scope) -> Result<Self, CallError> {
        let wrong = |what: &str| {
            let what = format!("params.notifications {what}");
            CallError::refused(INVALID_PARAMS, what).with_status(StatusCode::BAD_REQUEST)
        };
        let text = call.message.params.and_then(|params| {
            let mut members = envelope::members(&call.body, params).filter_map(Result::ok);
            members.find_map(|(key, value)| (key == "notifications").then_some(value))
        });
        let text = text.ok_or_else(|| wrong("is missing"))?.of(&call.body);
        let mut filter: Self = serde_json::from_slice(text).map_err(|e| wrong(&e.to_string()))?;
        if filter.resource_subscriptions.len() + filter.task_ids.len() > MOST {
            return Err(wrong(&format!(
                "names more than {MOST} resources and tasks"
            )));
        }
        if !filter.task_ids.is_empty() {
            tasks::declared(call)?;
            let tokens = filter.task_ids.iter();
            let known = tokens.filter_map(|token| tasks::open(scope, &call.principal, token));
            filter.tasks = known.collect();
        }
        Ok(filter)
    }

    pub(super) const fn wants(&self, kind: Listed) -> bool {
        match kind {
            Listed::Tools => self.tools_list_changed,
            Listed::Prompts => self.prompts_list_changed,
            Listed::Resources => self.resources_list_changed,
        }
    }

    pub(super) fn wants_lists(&self) -> bool {
        Listed::ALL.into_iter().any(|kind| self.wants(kind))
    }

    /// What of it is honoured: changes of lists always.
    pub(super) fn honoured(&self, uri: impl Fn(&str) -> bool, task: impl Fn(&str) -> bool) -> Self {
        let mut honoured = self.clone();
        honoured.resource_subscriptions.retain(|own| uri(own));
        honoured.task_ids.retain(|own| task(own));
        honoured
    }
}

/// The members of `_meta` with which a backend is asked for this client.
pub(super) fn meta(call: &Call) -> String {
    let text = |span: Option<envelope::Span>, other: &'static str| {
        span.and_then(|span| std::str::from_utf8(span.of(&call.body)).ok())
            .unwrap_or(other)
            .to_owned()
    };
    format!(
        r#""io.modelcontextprotocol/protocolVersion":"{}","io.modelcontextprotocol/clientInfo":{},"io.modelcontextprotocol/clientCapabilities":{}"#,
        ProtocolVersion::V2026_07_28.as_str(),
        text(call.message.client_info, CLIENT_INFO),
        text(call.message.client_capabilities, "{}"),
    )
}
