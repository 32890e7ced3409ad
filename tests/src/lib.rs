//! The harness of the end-to-end tests: the real programs as child processes, MCP servers that
//! misbehave on demand, and clients that hide nothing. From the outside in:
//!
//! - [`fleet`]: `mcpctl up` (one process) or a control plane and data planes (several), with
//!   everything on free loopback ports and state in a temporary folder;
//! - [`programs`]: where the built programs and the installed servers and clients are;
//! - [`process`]: a child process: its output, its end, what `/proc` says about a pid;
//! - [`admin`]: the gRPC administration API;
//! - [`client`]: an MCP client on one plain HTTP connection, without retries;
//! - [`backend`]: scripted MCP servers of both eras;
//! - [`wait`]: waiting for a condition, with a deadline.

pub mod admin;
pub mod backend;
pub mod client;
pub mod fleet;
pub mod process;
pub mod programs;
pub mod wait;
