//! The whole product, driven from outside. One binary, so that it is linked once; in the order of
//! the acceptance list.

mod e2e {
    mod access;
    mod asking;
    mod auth;
    mod bytes;
    mod churn;
    mod client_matrix;
    mod clients;
    mod config;
    mod conformance;
    mod connect;
    mod deploy;
    mod elsewhere;
    mod eras;
    mod fidelity;
    mod fleet;
    mod held;
    mod hostile;
    mod http2;
    mod identity;
    mod killed;
    mod logs;
    mod matrix;
    mod nack;
    mod nodes;
    mod outage;
    mod peers;
    mod postgres;
    mod race;
    mod regrouped;
    mod replace;
    mod reports;
    mod restarts;
    mod revoke;
    mod rounds;
    mod rude;
    mod secrets;
    mod split;
    mod sse;
    mod stalled;
    mod stdio;
    mod subscriptions;
    mod swap;
    mod tasks;
    mod unix;
    mod watched;
    mod websocket;
}
