//! The messages of a subscription: each names it.

use bytes::Bytes;

use super::filter::Filter;
use crate::{
    catalog::versions::Listed,
    envelope::{self, Edit, Message, Span},
    upstream::message::SUBSCRIPTION_ID as KEY,
};

/// A notification of the proxy's own; `id` is a JSON text, `more` further members of
/// `params`, with a comma before them.
fn notification(method: &str, id: &[u8], more: &str) -> Bytes {
    let id = String::from_utf8_lossy(id);
    format!(
        r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"_meta":{{"{KEY}":{id}}}{more}}}}}"#
    )
    .into()
}

pub(super) fn acknowledged(id: &[u8], honoured: &Filter) -> Bytes {
    let honoured = serde_json::to_string(honoured).unwrap_or_else(|_| "{}".to_owned());
    let more = format!(r#","notifications":{honoured}"#);
    notification("notifications/subscriptions/acknowledged", id, &more)
}

pub(super) fn list_changed(id: &[u8], kind: Listed) -> Bytes {
    notification(kind.notification(), id, "")
}

/// The closing result.
pub(super) fn closed(id: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(id);
    let result = format!(r#"{{"resultType":"complete","_meta":{{"{KEY}":{text}}}}}"#);
    crate::error::result_message(id, result.as_bytes())
}

/// A backend's notification, as one of the client's subscription `id`. `task` is the
/// literal that takes the place of `params.taskId`. `None`: it has no `params`.
pub(super) fn passed(
    data: &Bytes,
    message: &Message,
    id: &[u8],
    task: Option<(Span, &[u8])>,
) -> Option<Bytes> {
    let member = [b"\"", KEY.as_bytes(), b"\":", id].concat();
    let whole = [b"\"_meta\":{", &member[..], b"}"].concat();
    let mut edits = Vec::with_capacity(2);
    edits.push(match message.meta {
        None => envelope::insert_member(data, message.params?, &whole),
        Some(meta) => {
            let mut members = envelope::members(data, meta).filter_map(Result::ok);
            match members.find(|(key, _)| key == KEY) {
                Some((_, own)) => Edit::replace(own, id),
                None => envelope::insert_member(data, meta, &member),
            }
        }
    });
    edits.extend(task.map(|(span, literal)| Edit::replace(span, literal)));
    envelope::splice(data, &mut edits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_notification_names_the_clients_subscription() {
        for (params, expected) in [
            (
                r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"listen-7","x":1.0},"uri":"a"}"#,
                r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"mine","x":1.0},"uri":"a"}"#,
            ),
            (
                r#"{"_meta":{"x":1.0},"uri":"a"}"#,
                r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"mine","x":1.0},"uri":"a"}"#,
            ),
            (
                r#"{"uri":"a"}"#,
                r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"mine"},"uri":"a"}"#,
            ),
        ] {
            let text = |params| {
                format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{params}}}"#
                )
            };
            let data = Bytes::from(text(params));
            let message = envelope::scan(&data).unwrap();
            let out = passed(&data, &message, b"\"mine\"", None).unwrap();
            assert_eq!(out, text(expected));
        }
    }
}
