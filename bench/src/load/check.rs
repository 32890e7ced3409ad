//! Whether an answer is right. The first one is read whole; those after it are compared with it
//! byte for byte, but for the id, and read whole only where they differ.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{
    Ask,
    request::{TEXT, id_text},
};

/// Length of the text of a large answer.
pub const LARGE: usize = 64 << 10;

/// What a right answer looks like, as far as one has been seen.
#[derive(Default)]
pub struct Check {
    front: Vec<u8>,
    back: Vec<u8>,
    known: bool,
}

impl Check {
    /// Checks the answer to the call of this id.
    ///
    /// # Errors
    /// It is not the result that was asked for.
    pub fn check(
        &mut self,
        ask: &Ask,
        id: u64,
        status: u16,
        events: bool,
        body: &[u8],
    ) -> Result<()> {
        if status == 200 && self.is_like_before(ask, id, body) {
            return Ok(());
        }
        if status != 200 {
            bail!("status {status}: {}", shown(body));
        }
        if !matches!(ask, Ask::File) {
            self.whole(ask, id, events, body)
                .with_context(|| shown(body))?;
        }
        self.learn(ask, id, body);
        Ok(())
    }

    fn is_like_before(&self, ask: &Ask, id: u64, body: &[u8]) -> bool {
        let id = id_text(id);
        let id: &[u8] = if matches!(ask, Ask::File) { &[] } else { &id };
        let after = self.front.len() + id.len();
        self.known
            && body.len() == after + self.back.len()
            && body[..self.front.len()] == self.front
            && body[self.front.len()..after] == *id
            && body[after..] == self.back
    }

    /// The next answers are to look like this one. One without its id in it once is read whole
    /// every time.
    fn learn(&mut self, ask: &Ask, id: u64, body: &[u8]) {
        if self.known {
            return;
        }
        let place = match ask {
            Ask::File => Some((body.len(), 0)),
            _ => memchr::memmem::find(body, &id_text(id)).map(|at| (at, id_text(id).len())),
        };
        if let Some((at, length)) = place {
            self.front = body[..at].to_vec();
            self.back = body[at + length..].to_vec();
            self.known = true;
        }
    }

    fn whole(&self, ask: &Ask, id: u64, events: bool, body: &[u8]) -> Result<()> {
        let id = std::str::from_utf8(&id_text(id))?.parse::<u64>()?;
        let message = if events {
            response_among(body, id)?
        } else {
            serde_json::from_slice::<Value>(body).context("the answer is no JSON")?
        };
        ensure!(message["id"] == id, "the answer has another id");
        let result = &message["result"];
        ensure!(result.is_object(), "no result");
        ensure!(result["isError"] != true, "the result is an error");
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        match ask {
            Ask::Small => ensure!(text == TEXT, "another text"),
            Ask::Large => ensure!(text.len() == LARGE, "the text has {} bytes", text.len()),
            Ask::List { tools } => {
                let found = result["tools"].as_array().map_or(0, Vec::len);
                ensure!(found == *tools, "{found} tools instead of {tools}");
            }
            Ask::File => {}
        }
        Ok(())
    }
}

/// The response of this id in an event stream.
fn response_among(body: &[u8], id: u64) -> Result<Value> {
    let text = std::str::from_utf8(body)?;
    for event in text.replace("\r\n", "\n").split("\n\n") {
        let data: String = event
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .collect();
        if let Ok(message) = serde_json::from_str::<Value>(&data)
            && message["id"] == id
        {
            return Ok(message);
        }
    }
    bail!("the event stream holds no response of this id")
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: &str, text: &str) -> Vec<u8> {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#)
            .into_bytes()
    }

    #[test]
    fn only_the_result_of_this_call_passes() {
        let mut check = Check::default();
        let mut is_right = |id, body: &[u8]| check.check(&Ask::Small, id, 200, false, body).is_ok();
        assert!(is_right(1, &answer("1000000000000001", TEXT)));
        assert!(is_right(2, &answer("1000000000000002", TEXT)));
        assert!(!is_right(3, &answer("1000000000000002", TEXT)));
        assert!(!is_right(4, &answer("1000000000000004", "another text")));
        let error =
            br#"{"jsonrpc":"2.0","id":1000000000000005,"error":{"code":-1,"message":"no"}}"#;
        assert!(!is_right(5, error));
        // As good, only written in another way.
        let spaced = String::from_utf8(answer("1000000000000006", TEXT)).unwrap();
        assert!(is_right(6, spaced.replace(':', ": ").as_bytes()));
    }

    #[test]
    fn a_result_in_an_event_stream_passes_and_an_error_status_does_not() {
        let mut check = Check::default();
        let event = [
            b"event: message\ndata: ".as_slice(),
            &answer("1000000000000001", TEXT),
            b"\n\n",
        ]
        .concat();
        assert!(check.check(&Ask::Small, 1, 200, true, &event).is_ok());
        assert!(check.check(&Ask::Small, 2, 200, true, &event).is_err());
        assert!(check.check(&Ask::Small, 1, 500, true, &event).is_err());
    }

    #[test]
    fn a_short_list_is_an_error() {
        let mut check = Check::default();
        let body = br#"{"jsonrpc":"2.0","id":1000000000000001,"result":{"tools":[{}]}}"#;
        let mut of = |tools| check.check(&Ask::List { tools }, 1, 200, false, body);
        assert!(of(2).is_err() && of(1).is_ok());
    }
}
