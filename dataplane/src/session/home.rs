//! [`Home`]: the data plane that a session lives on.

use serde::{Deserialize, Serialize};

use super::Session;

/// One start of a data plane. What it held is gone with it: the next one of the same
/// node is another home.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Home {
    /// Its node id.
    #[serde(rename = "n")]
    pub node: String,
    /// The start of its process.
    #[serde(rename = "b")]
    pub boot: String,
}

impl Home {
    /// A new start of this node.
    #[must_use]
    pub fn begin(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            boot: uuid::Uuid::new_v4().to_string(),
        }
    }
}

impl Session {
    /// Names it among all sessions of the fleet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was opened; `None`: by a version that did not say.
    #[must_use]
    pub const fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }
}
