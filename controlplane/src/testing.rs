//! What tests run against: a real Postgres, and a network that can be cut.

pub(crate) mod forwarder;
pub(crate) mod postgres;
