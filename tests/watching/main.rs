//! What watches the pooler: Prometheus and promtool as Debian has them, dashboards, alerts, systemd.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests: what is not there fails them, and measurements print"
)]

#[path = "../support/mod.rs"]
mod support;

mod panels;
mod probes;
mod prometheus;
mod provisions;
mod scrape;
mod service;
mod stuck;
mod thousand;
