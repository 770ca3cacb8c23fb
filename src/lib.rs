//! A multithreaded PostgreSQL connection pooler. `ARCHITECTURE.md` is the map.

pub mod admin;
pub mod batch;
pub mod buffer;
pub mod cancel;
pub mod check;
pub mod client;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod error;
mod exposition;
pub mod ldap;
pub mod listener;
pub mod log;
pub mod lookup;
pub mod metrics;
pub mod net;
pub mod notify;
pub mod observe;
pub mod pam;
pub mod pool;
pub mod registry;
pub mod relay;
mod run;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod timer;
pub mod tls;
pub mod top;
pub mod worker;

pub use run::{RunError, run};
