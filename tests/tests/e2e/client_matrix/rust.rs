//! What the clients in Rust have in common: the plans of `tests/clients/plan.py`.

use anyhow::{Context, Result};
use fleet_tests::wait::until;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// A client that is connected.
pub(super) trait Connected {
    /// The result of a request; of a list, all items of all pages.
    async fn request(&self, method: &str, params: Value) -> Result<Value>;
}

/// What a server has asked and told.
#[derive(Default)]
pub(super) struct Heard {
    asked: Mutex<Vec<Value>>,
    told: Mutex<Vec<Value>>,
}

impl Heard {
    /// The answer to a question.
    pub(super) fn asked(&self, method: &str, mut params: Value) -> Value {
        if let Some(params) = params.as_object_mut() {
            params.remove("_meta");
        }
        let answer = if method == "sampling/createMessage" {
            let content = json!({"type": "text", "text": "what was sampled"});
            json!({"role": "assistant", "model": "a model", "content": content})
        } else {
            let fields = params["requestedSchema"]["properties"].as_object();
            // One field: tower-mcp keeps them in no order.
            let fields = fields.into_iter().flatten().take(1);
            let content: Map<_, _> = fields
                .map(|(field, _)| (field.clone(), json!(format!("my {field}"))))
                .collect();
            json!({"action": "accept", "content": content})
        };
        self.asked.lock().push(json!([method, params]));
        answer
    }

    pub(super) fn told(&self, progress: f64, total: Option<f64>) {
        self.told.lock().push(json!([progress, total]));
    }
}

/// What a client declares for a plan.
pub(super) fn capabilities(plan: &Value) -> Value {
    if plan["asks"][0].is_array() {
        json!({"sampling": {}, "elicitation": {"form": {}}})
    } else {
        json!({})
    }
}

/// Runs a plan and gives what came back.
pub(super) async fn run(client: &impl Connected, plan: &Value, heard: &Heard) -> Result<Value> {
    let prefix = plan["prefix"].as_str().context("a prefix")?;
    let named = |name: &Value| format!("{prefix}{}", name.as_str().unwrap_or_default());
    let items = |key: &str| plan[key].as_array().cloned().unwrap_or_default();
    let own = |mut listed: Value| {
        let items = listed.as_array_mut().context("a list")?;
        items.retain_mut(|item| {
            let name = item["name"].as_str().unwrap_or_default();
            let Some(name) = name.strip_prefix(prefix).map(str::to_owned) else {
                return false;
            };
            item["name"] = name.into();
            true
        });
        anyhow::Ok(listed)
    };
    let mut out = json!({"tools": own(client.request("tools/list", json!({})).await?)?});
    let called = async |calls: &str| {
        let mut results = Vec::new();
        for call in items(calls) {
            let params = json!({"name": named(&call[0]), "arguments": call[1]});
            results.push(client.request("tools/call", params).await?);
        }
        anyhow::Ok(results)
    };
    out["calls"] = called("calls").await?.into();
    // Notifications may be handled behind the response that follows them.
    let expected = plan["progress"].as_u64().unwrap_or_default() as usize;
    until("the progress of all calls", || async {
        (heard.told.lock().len() >= expected).then_some(())
    })
    .await?;
    let mut told = std::mem::take(&mut *heard.told.lock());
    told.sort_by_key(Value::to_string);
    out["progress"] = json!([told]);
    for (key, method) in [
        ("resources", "resources/list"),
        ("templates", "resources/templates/list"),
    ] {
        if !items("reads").is_empty() {
            out[key] = client.request(method, json!({})).await?;
        }
    }
    let mut results = Vec::new();
    for uri in items("reads") {
        results.push(
            client
                .request("resources/read", json!({"uri": uri}))
                .await?,
        );
    }
    out["reads"] = std::mem::take(&mut results).into();
    out["prompts"] = own(client.request("prompts/list", json!({})).await?)?;
    for prompt in items("prompts") {
        let params = json!({"name": named(&prompt[0]), "arguments": prompt[1]});
        results.push(client.request("prompts/get", params).await?);
    }
    out["got"] = std::mem::take(&mut results).into();
    for completion in items("completions") {
        let params = json!({
            "ref": {"type": "ref/prompt", "name": named(&completion[0])},
            "argument": {"name": completion[1], "value": completion[2]},
        });
        results.push(client.request("completion/complete", params).await?);
    }
    out["completed"] = results.into();
    out["answered"] = called("asks").await?.into();
    out["asked"] = std::mem::take(&mut *heard.asked.lock()).into();
    Ok(out)
}
