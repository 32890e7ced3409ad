//! The nodes, as far as a caller sees what is wrong with them.

use fleet_proto::{key::DEFAULT_PROJECT, v1};

use super::{Api, Caller};

impl Api {
    /// The nodes and how they stand towards the newest revision. A caller who is
    /// limited to projects sees all nodes, but only problems of these projects.
    pub(crate) fn nodes(&self, caller: &Caller) -> v1::NodesResponse {
        let newest = self.newest();
        let mut nodes = self.nodes.view(&newest);
        for node in &mut nodes {
            let expires_ms = self.identities.expires_ms(&node.node_id);
            node.certificate_expires_ms = expires_ms.unwrap_or(0);
        }
        if caller.is_limited() {
            for node in &mut nodes {
                hide(caller, &mut node.errors);
                hide(caller, &mut node.degraded);
            }
        }
        v1::NodesResponse {
            nodes,
            revision: newest.revision,
        }
    }
}

fn hide(caller: &Caller, problems: &mut Vec<v1::Problem>) {
    let all = problems.len();
    problems.retain(|problem| {
        problem.key.as_ref().is_some_and(|key| {
            let project = Some(key.project.as_str()).filter(|project| !project.is_empty());
            caller.sees(project.unwrap_or(DEFAULT_PROJECT))
        })
    });
    let hidden = all - problems.len();
    if hidden > 0 {
        problems.push(v1::Problem {
            message: format!("{hidden} problems outside of the projects of this token"),
            ..Default::default()
        });
    }
}
