//! The verbs, one file each.
//!
//! Configuration: [`up`], [`apply`], [`diff`], [`validate`], [`get`],
//! [`describe`], [`edit`], [`delete`], [`export`], [`explain`], [`schema`].
//! Its past: [`history`], [`revisions`], [`rollback`]. The fleet: [`status`],
//! [`nodes`], [`node`], [`logs`], [`wait`]. Speaking MCP to a gateway: [`tools`], [`call`],
//! [`resources`], [`prompts`], [`connect`]. Who may, and where: [`login`], [`context`],
//! [`token`], [`trust`]; and what they may no longer: [`revoke`], [`session_keys`].
//! Values that nobody is to read: [`secret`]. The rest: [`demo_server`],
//! [`completion`], [`version`].

pub(crate) mod apply;
pub(crate) mod call;
pub(crate) mod completion;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod delete;
pub(crate) mod demo_server;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod edit;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod prompts;
pub(crate) mod resources;
pub(crate) mod revisions;
pub(crate) mod revoke;
pub(crate) mod rollback;
pub(crate) mod schema;
pub(crate) mod secret;
pub(crate) mod session_keys;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod tools;
pub(crate) mod trust;
pub(crate) mod up;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod wait;
