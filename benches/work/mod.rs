//! What the microbenchmarks time and the instruction counts count: one piece of the hot path each,
//! with its input made beforehand. Nothing here measures.

pub(crate) mod frames;
pub(crate) mod ledger;
pub(crate) mod names;
pub(crate) mod scram;
pub(crate) mod settings;
pub(crate) mod waiters;
