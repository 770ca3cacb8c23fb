//! The PostgreSQL wire protocol as a pooler sees it.
//!
//! Sans-I/O: nothing here touches a socket, a clock or a log. Everything takes bytes and returns
//! decisions, so that every line can be tested and fuzzed without a server.
//!
//! *Frontend* and *backend* name the direction of a message, as in PostgreSQL's documentation
//! ("Message Formats"): a frontend message is one that a client sends.

pub mod auth;
pub mod backend;
pub mod frame;
pub mod frontend;
pub mod hba;
pub mod ledger;
pub mod naming;
pub mod prepared;
pub mod route;
pub mod settings;
pub mod startup;
pub mod statement;
pub mod vigilance;
