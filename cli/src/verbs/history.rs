//! `mcpctl history`: the revisions, or who changed a resource.

use clap::Args;
use fleet_proto::{
    key::Key,
    v1::{AuditChange, AuditEntry, AuditRequest},
};

use super::revisions;
use crate::{
    change,
    client::{self, Client},
    clock,
    failure::Failure,
    kinds::{self, Selection},
    output,
};

/// Entries in one answer.
const PAGE: u32 = 1000;

/// Flags of `history`.
#[derive(Debug, Args)]
// The flags of `revisions` make a group of this name.
#[group(skip)]
pub(crate) struct Flags {
    /// `KIND NAME` or `KIND/NAME`: only what changed that resource. Left out: all revisions.
    #[arg(value_name = "KIND NAME")]
    what: Vec<String>,
    /// Project of the name; `default` when left out.
    #[arg(long, short, value_name = "NAME")]
    project: Option<String>,
    #[command(flatten)]
    list: revisions::Flags,
}

/// Shows it.
pub(crate) async fn run(flags: Flags) -> Result<(), Failure> {
    let key = match kinds::select(&flags.what, flags.project.as_deref())? {
        Selection::All => return revisions::run(flags.list).await,
        Selection::Keys(mut keys) if keys.len() == 1 => keys.remove(0),
        _ => return Err(Failure::Usage("name one resource: KIND NAME".to_owned())),
    };
    let list = flags.list;
    let mut client = client::connect(&list.admin.resolve()?).await?;
    let entries = entries(&mut client, &key, list.limit).await?;
    if entries.is_empty() {
        output::note(&format!("nothing has changed {key}"));
    }
    output::data(&output::listing(
        list.output,
        &entries,
        &entries,
        |entry| entry.revision.to_string(),
        table,
    )?)
}

/// The newest entries about a resource, with nothing in them about others.
async fn entries(client: &mut Client, key: &Key, limit: u32) -> Result<Vec<AuditEntry>, Failure> {
    let wanted = key.to_wire();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let mut before = 0;
    loop {
        let request = AuditRequest {
            limit: PAGE,
            before,
        };
        let page = client.audit(request).await?.into_inner().entries;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        before = last.id;
        for mut entry in page {
            entry.changes.retain(|c| c.key.as_ref() == Some(&wanted));
            if !entry.changes.is_empty() {
                found.push(entry);
            }
            if found.len() == limit {
                return Ok(found);
            }
        }
    }
}

fn table(entries: &[AuditEntry], wide: bool) -> String {
    let mut head = vec![
        "REVISION", "CHANGED", "AUTHOR", "ACTION", "FIELDS", "MESSAGE",
    ];
    if wide {
        head.extend(["FROM", "OLD HASH", "NEW HASH"]);
    }
    let row = |entry: &AuditEntry, change: &AuditChange| {
        let mut cells = vec![
            entry.revision.to_string(),
            clock::rfc3339(entry.at_ms),
            entry.author.clone(),
            change::verb(change.action()).to_owned(),
            change.fields.join(","),
            entry.message.clone(),
        ];
        if wide {
            let hashes = [&change.old_hash, &change.new_hash].map(String::clone);
            cells.push(entry.peer.clone());
            cells.extend(hashes);
        }
        cells
    };
    let rows = entries
        .iter()
        .flat_map(|entry| entry.changes.iter().map(move |change| row(entry, change)));
    output::table(&head, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use fleet_proto::key::Kind;

    use super::*;
    use crate::bench::Bench;

    fn backend(name: &str, port: u16) -> String {
        format!(
            "kind: Backend\nname: {name}\nhttp: {{ url: 'http://127.0.0.1:{port}/mcp' }}\n---\n"
        )
    }

    #[tokio::test]
    async fn a_resource_has_a_history_of_its_own() {
        let mut bench = Bench::new().await;
        let both = format!("{}{}", backend("a", 1), backend("b", 1));
        for text in [both, backend("b", 2), backend("a", 2)] {
            bench.apply(&text).await;
        }
        let key = Key::new("", Kind::Backend, "a");
        let found = entries(&mut bench.client, &key, 20).await.unwrap();
        let revisions: Vec<u64> = found.iter().map(|e| e.revision).collect();
        assert_eq!(revisions, [3, 1]);
        let text = table(&found, false);
        assert!(
            text.contains("configured") && text.contains("http.url"),
            "{text}"
        );
        assert!(!text.contains("127.0.0.1"), "{text}");
        let newest = entries(&mut bench.client, &key, 1).await.unwrap();
        assert_eq!(newest.len(), 1);
        bench.stop().await;
    }
}
