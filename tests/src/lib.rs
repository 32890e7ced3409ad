//! The harness of the end-to-end tests: the real programs as child processes, MCP servers that
//! misbehave on demand, and clients that hide nothing. From the outside in:
//!
//! - [`fleet`]: `mcpctl up` (one process) or a control plane and a data plane (two), with
//!   everything on free loopback ports and state in a temporary folder;
//! - [`replicas`]: a control plane and any number of data planes that take each other's sessions;
//! - [`balancer`]: nginx or HAProxy before them, with the configuration of `deploy/`;
//! - [`secured`]: the same over TLS, with data planes that join;
//! - [`store`]: the database of a control plane: a file, or one of a private [`postgres`] behind,
//!   where a test cuts it off, a [`forwarder`];
//! - [`fake_node`]: a data plane's end of the sync stream, by hand;
//! - [`relay`]: between a control plane and a data plane, what a newer one would send;
//! - [`programs`]: where the built programs and the installed servers and clients are;
//! - [`process`]: a child process: its output, its end, what `/proc` says about a pid;
//! - [`admin`]: the gRPC administration API;
//! - [`client`]: an MCP client on one plain HTTP connection, without retries;
//! - [`load`]: many of them, that call without pause;
//! - [`backend`]: scripted MCP servers of both eras;
//! - [`listeners`]: who listens at one of them;
//! - [`wait`]: waiting for a condition, with a deadline.

pub mod admin;
pub mod backend;
pub mod balancer;
pub mod client;
pub mod fake_node;
pub mod fleet;
pub mod forwarder;
pub mod listeners;
pub mod load;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod relay;
pub mod replicas;
pub mod secured;
pub mod store;
pub mod wait;
