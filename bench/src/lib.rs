//! What mcp-fleet costs.
//!
//! - [`backend`]: an MCP server that echoes, as cheap as possible;
//! - [`load`]: clients that call without pause and check every answer;
//! - [`rig`]: the backend, nginx, our data plane and peers as processes ([`child`]);
//! - [`run`]: all of them side by side; [`report`]: the figures in `docs/performance.md`;
//! - [`big`]: long lists, big tables, many calls;
//! - [`loader`]: whether the load is the limit;
//! - [`guard`]: instructions and allocations of a call beside what is recorded.

pub mod backend;
pub mod big;
pub mod child;
pub mod guard;
pub mod load;
pub mod loader;
pub mod report;
pub mod rig;
pub mod run;
