//! The verbs, one file each.
//!
//! Configuration: [`up`], [`apply`], [`validate`], [`get`], [`delete`],
//! [`nodes`], [`revisions`]. Speaking MCP to a gateway: [`tools`], [`call`],
//! [`resources`], [`prompts`]. The rest: [`demo_server`], [`completion`],
//! [`version`].

pub(crate) mod apply;
pub(crate) mod call;
pub(crate) mod completion;
pub(crate) mod delete;
pub(crate) mod demo_server;
pub(crate) mod get;
pub(crate) mod nodes;
pub(crate) mod prompts;
pub(crate) mod resources;
pub(crate) mod revisions;
pub(crate) mod tools;
pub(crate) mod up;
pub(crate) mod validate;
pub(crate) mod version;
