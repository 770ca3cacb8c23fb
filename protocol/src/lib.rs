//! The PostgreSQL wire protocol as a pooler sees it.
//!
//! Sans-I/O: nothing here touches a socket, a clock or a log. Everything takes bytes and returns
//! decisions, so that every line can be tested and fuzzed without a server.

pub mod auth;
pub mod startup;
