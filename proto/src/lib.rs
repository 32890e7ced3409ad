//! The contract of mcp-fleet, in the order in which configuration meets it.
//!
//! - [`read`]: files to resources, every problem with `file:line:column`;
//! - [`v1`]: the generated messages and services of `fleet/v1/*.proto`;
//! - [`key`]: what identifies a resource;
//! - [`validate`]: resources to [`Valid`](validate::Valid), or every problem with its path;
//! - [`reference`](mod@reference), [`select`]: rules that validation and data plane share: `${env:NAME}`
//!   in texts, and which backends are behind a gateway;
//! - [`secret`]: the values of Secrets, which no set of resources holds;
//! - [`sets`]: secrets, session keys and revocations in parts, beside the configuration;
//! - [`hash`]: resource hash and root hash;
//! - [`delta`](mod@delta): from one set to another, and the parts in which that is sent;
//! - [`write`](mod@write): resources to files again;
//! - [`duration`], [`json`]: the two types of ours behind `extern_path`.

pub mod delta;
mod descriptor;
pub mod duration;
pub mod hash;
pub mod json;
pub mod key;
mod nearest;
pub mod read;
mod redact;
pub mod reference;
pub mod secret;
pub mod select;
pub mod sets;
pub mod validate;
pub mod write;

/// Messages and services of `fleet/v1/*.proto`.
#[allow(
    clippy::all,
    clippy::large_futures,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/fleet.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/fleet.v1.serde.rs"));
}

/// The compiled descriptors of `fleet/v1/*.proto`, with their comments
/// (an encoded `google.protobuf.FileDescriptorSet`).
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
